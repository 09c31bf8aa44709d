//! The way over the underlay. Routing and neighbours are the kernel's: it is asked now and then, and in between packets
//! go where it has sent the ones before.

use flannel_common::maps::{NextHop, Node, Peer};
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::Flows as _;
use flannel_ebpf::frame::{FlowFrame as _, Frame as _};

use crate::context::Skb;
use crate::flow_table::FlowTable;
use crate::table;

/// The next hop towards a peer.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    /// Which.
    pub hop: NextHop,
    /// The peer's public address.
    public_ip: Ip4,
    /// Whether it was asked for just now. Then the packet goes by the kernel's routing, which keeps the neighbour from
    /// growing stale, and those behind it go where it went.
    is_new: bool,
}

/// The next hop towards a `peer`.
#[inline(always)]
pub(crate) fn find(skb: &Skb, node: &Node, peer: &Peer) -> Lookup {
    let public_ip = peer.public_ip;
    // Rules may route marked packets another way.
    if skb.mark() != 0 {
        return Lookup { hop: NextHop::UNKNOWN, public_ip, is_new: true };
    }
    let (now, generation) = (FlowTable.now(), FlowTable.generation());
    if peer.next_hop.holds(now, generation) {
        return Lookup { hop: peer.next_hop, public_ip, is_new: false };
    }
    let addresses = skb.next_hop(node.underlay, node.local_ip, public_ip);
    // Not every link has addresses, nor is every neighbour known yet.
    let (destination, source) = addresses.unwrap_or((Mac::ZERO, Mac::ZERO));
    let hop = NextHop { until: now + NextHop::VALID, destination, source, generation };
    Lookup { hop, public_ip, is_new: true }
}

impl Lookup {
    /// Sends a packet there, to the peer of `subnet`.
    #[inline(always)]
    pub(crate) fn send(&self, skb: &mut Skb, node: &Node, subnet: Ip4) -> Result<(), Reason> {
        if !self.is_new {
            return send(skb, node, self.hop.destination, self.hop.source);
        }
        if self.hop.until != 0 {
            table::note_next_hop(subnet, self.public_ip, &self.hop);
        }
        skb.route(node.underlay)
    }
}

/// Sends a packet out of the underlay with these Ethernet addresses, or by the kernel's routing where those are zero.
#[inline(always)]
pub(crate) fn send(skb: &mut Skb, node: &Node, destination: Mac, source: Mac) -> Result<(), Reason> {
    // Rules may route marked packets another way.
    if skb.mark() != 0 || destination == Mac::ZERO {
        return skb.route(node.underlay);
    }
    skb.address(destination, source)?;
    skb.transmit(node.underlay)
}
