//! Which packets may enter, through the tunnel and beside it, and which may leave a pod.

use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::wire::{ETHER_TYPE_IPV4, IPV4_NO_OPTIONS, Ipv4Header, PROTOCOL_UDP};
use flannel_common::{Ip4, Reason};

use crate::frame::Frame;
use crate::inner;
use crate::outer::{self, OuterHeaders};
use crate::peers::Peers;

/// Encapsulating security payload (RFC 4303).
const PROTOCOL_ESP: u8 = 50;
/// Authentication header (RFC 4302).
const PROTOCOL_AH: u8 = 51;
/// The UDP port of the former behind a translation of addresses (RFC 3948).
const ESP_IN_UDP: u16 = 4500;

const OFF: u32 = Guard::Off as u32;
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
        _ => {
            known_source(peers, outer)?;
            // In its own name: a process of that host asks a service whose address is translated to a pod's.
            if inner == outer { Ok(Peer::UNKNOWN) } else { Err(Reason::InnerSourceMismatch) }
        }
    }
}

#[inline(always)]
fn known_source(peers: &impl Peers, outer: Ip4) -> Result<(), Reason> {
    if peers.is_source(outer) { Ok(()) } else { Err(Reason::UnknownOuterSource) }
}

/// Whether a packet that arrived at the underlay is one of IPsec from a peer's address. What the stack makes of it is
/// from that peer, or else the stack drops it.
#[inline(always)]
pub fn is_ipsec_of_peer(frame: &impl Frame, peers: &impl Peers) -> bool {
    let Ok(OuterHeaders { ethernet, ip, udp }) = frame.load::<OuterHeaders>(0) else { return false };
    let is_ipsec = match ip.protocol {
        PROTOCOL_ESP | PROTOCOL_AH => true,
        PROTOCOL_UDP => udp.destination.get() == ESP_IN_UDP,
        _ => false,
    };
    is_ipsec && ethernet.ether_type == ETHER_TYPE_IPV4 && peers.is_source(ip.source())
}

/// Checks the inner packet that the kernel's device has decapsulated, where the outer one was hidden from programs:
/// from a subnet of any peer or the peer itself, and to one of this host's.
#[inline(always)]
pub fn admit_decrypted(node: &Node, peers: &impl Peers, inner: &Ipv4Header) -> Result<(), Reason> {
    if node.guard == OFF {
        return Ok(());
    }
    if node.guard == STRICT
        && peers.peer(inner.source().masked(node.netmask)).is_none()
        && !peers.is_source(inner.source())
    {
        return Err(Reason::InnerSourceMismatch);
    }
    if inner.destination().masked(node.netmask) == node.subnet {
        Ok(())
    } else {
        Err(Reason::InnerDestinationNotLocal)
    }
}

/// Checks a packet that arrived at the underlay without a tunnel. Nothing comes from the subnet of this host, and to
/// its pods nothing comes from that of a peer behind the tunnel. Without this check, a host on the link could do
/// without the tunnel: rp_filter in loose mode lets such packets in (`__fib_validate_source`).
#[inline(always)]
pub fn admit_plain(frame: &impl Frame, peers: &impl Peers, node: &Node) -> Result<(), Reason> {
    if node.guard == OFF {
        return Ok(());
    }
    let Ok(inner::InnerHeaders { ip, .. }) = inner::headers(frame) else { return Ok(()) };
    let subnet = ip.source().masked(node.netmask);
    if subnet == node.subnet {
        return Err(Reason::SpoofedSource);
    }
    if ip.destination().masked(node.netmask) != node.subnet {
        return Ok(());
    }
    match peers.peer(subnet) {
        Some(peer) if peer.direct == 0 => Err(Reason::SpoofedSource),
        _ => Ok(()),
    }
}

/// Checks a packet that a pod sends into the stack. A packet for the tunnel's port of a peer would arrive there as one
/// of this host's if the host masquerades it. One from a pod of another host would be forwarded in that pod's name,
/// which its receiver cannot know where routes lead straight to it.
#[inline(always)]
pub fn leave_pod(frame: &impl Frame, peers: &impl Peers, node: &Node) -> Result<(), Reason> {
    if node.guard == OFF {
        return Ok(());
    }
    let Ok(inner::InnerHeaders { ip, .. }) = inner::headers(frame) else { return Ok(()) };
    let subnet = ip.source().masked(node.netmask);
    if subnet != node.subnet && peers.peer(subnet).is_some() {
        return Err(Reason::SpoofedSource);
    }
    if ip.protocol != PROTOCOL_UDP || ip.is_later_fragment() || ip.version_ihl != IPV4_NO_OPTIONS {
        return Ok(());
    }
    let is_of_tunnel = match frame.load::<OuterHeaders>(0) {
        Ok(outer) => node.port != 0 && outer::is_port_of_tunnel(outer.udp.destination.get(), node),
        Err(_) => false,
    };
    if is_of_tunnel && peers.is_source(ip.destination()) { Err(Reason::TunnelFromPod) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use flannel_common::maps::{Guard, Node, Peer};
    use flannel_common::wire::Ipv4Header;
    use flannel_common::{Ip4, Reason};
    use zerocopy::FromBytes as _;

    use super::{admit_decrypted, is_ipsec_of_peer};
    use crate::model::Table;

    const PEER: [u8; 4] = [192, 168, 77, 12];

    fn table() -> Table {
        let mut table = Table::default();
        let peer = Peer { public_ip: Ip4::from_octets(PEER), ..Peer::default() };
        table.insert(Ip4::from_octets([10, 5, 2, 0]), peer);
        table
    }

    /// A frame of IPv4 with that protocol, and the destination port if it is UDP.
    fn frame(source: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 64];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&source);
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn ipsec_is_known_by_protocol_and_sender() {
        let is_it = |source, protocol, port| is_ipsec_of_peer(&frame(source, protocol, port), &table());
        assert!(is_it(PEER, 50, 0) && is_it(PEER, 51, 0) && is_it(PEER, 17, 4500));
        assert!(!is_it(PEER, 17, 8472) && !is_it(PEER, 6, 4500), "no IPsec");
        assert!(!is_it([192, 168, 77, 99], 50, 0), "no peer");
        assert!(!is_ipsec_of_peer(&vec![0; 20], &table()), "no packet");
    }

    #[test]
    fn what_was_encrypted_comes_from_a_peers_subnet_to_this_hosts() {
        let node = Node {
            subnet: Ip4::from_octets([10, 5, 1, 0]),
            netmask: Ip4::netmask(24),
            guard: Guard::Strict as u32,
            ..Node::UNSET
        };
        let admit = |node: &Node, source: [u8; 4], destination: [u8; 4]| {
            let mut header = [0; 20];
            header[12..16].copy_from_slice(&source);
            header[16..20].copy_from_slice(&destination);
            admit_decrypted(node, &table(), &Ipv4Header::read_from_bytes(&header).unwrap())
        };
        let (pod, local) = ([10, 5, 2, 9], [10, 5, 1, 7]);
        assert_eq!(admit(&node, pod, local), Ok(()));
        assert_eq!(admit(&node, PEER, local), Ok(()));
        assert_eq!(admit(&node, [8, 8, 8, 8], local), Err(Reason::InnerSourceMismatch));
        assert_eq!(admit(&node, pod, [192, 168, 77, 11]), Err(Reason::InnerDestinationNotLocal));
        let peer_level = Node { guard: Guard::Peer as u32, ..node };
        assert_eq!(admit(&peer_level, [8, 8, 8, 8], local), Ok(()));
        let off = Node { guard: Guard::Off as u32, ..node };
        assert_eq!(admit(&off, [8, 8, 8, 8], [192, 168, 77, 11]), Ok(()));
    }
}
