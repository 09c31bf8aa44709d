//! Which packets may enter through the tunnel.

use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::wire::Ipv4Header;
use flannel_common::{Ip4, Reason};

use crate::peers::Peers;

const PEER: u32 = Guard::Peer as u32;
const STRICT: u32 = Guard::Strict as u32;

/// Checks at the guard's level whether a packet from `outer_source` may enter with this inner header. Returns the peer
/// that it is from if the check needs it, or else [`Peer::UNKNOWN`]. Not an `Option`: the verifier refuses reads of the
/// uninitialised words of none.
#[inline(always)]
pub fn admit(node: &Node, peers: &impl Peers, outer_source: Ip4, inner: &Ipv4Header) -> Result<Peer, Reason> {
    let peer = match node.guard {
        STRICT => owner_of_source(node, peers, outer_source, inner.source())?,
        PEER => known_source(peers, outer_source).map(|()| Peer::UNKNOWN)?,
        _ => return Ok(Peer::UNKNOWN),
    };
    if inner.destination().masked(node.netmask) == node.subnet {
        Ok(peer)
    } else {
        Err(Reason::InnerDestinationNotLocal)
    }
}

#[inline(always)]
fn owner_of_source(node: &Node, peers: &impl Peers, outer: Ip4, inner: Ip4) -> Result<Peer, Reason> {
    match peers.peer(inner.masked(node.netmask)) {
        Some(peer) if peer.public_ip == outer => Ok(peer),
        _ => known_source(peers, outer).and(Err(Reason::InnerSourceMismatch)),
    }
}

#[inline(always)]
fn known_source(peers: &impl Peers, outer: Ip4) -> Result<(), Reason> {
    if peers.is_source(outer) { Ok(()) } else { Err(Reason::UnknownOuterSource) }
}
