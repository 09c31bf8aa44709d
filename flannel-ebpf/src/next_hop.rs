//! The way over the underlay. Routing and neighbours are the kernel's: it is asked now and then, and in between packets
//! go where it has sent the ones before.

use flannel_common::maps::{NextHop, Node, Peer};
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::Flows as _;
use flannel_ebpf::frame::FlowFrame as _;
use flannel_ebpf::segment::Packet;

use crate::context::Skb;
use crate::learned::Learned;
use crate::table;

/// The next hop towards a peer.
pub(crate) struct Found {
    /// Which.
    pub hop: NextHop,
    /// Whether it was asked for just now. Then the packet goes by the kernel's routing, which keeps the neighbour from
    /// growing stale.
    is_new: bool,
}

/// The next hop towards the `peer` of `subnet`.
#[inline(always)]
pub(crate) fn find(skb: &Skb, node: &Node, subnet: Ip4, peer: &Peer) -> Found {
    let (now, generation) = (Learned.now(), Learned.generation());
    if peer.next_hop.holds(now, generation) {
        return Found { hop: peer.next_hop, is_new: false };
    }
    let addresses = skb.next_hop(node.underlay, node.local_ip, peer.public_ip);
    // Not every link has addresses, nor is every neighbour known yet.
    let (destination, source) = addresses.unwrap_or((Mac::ZERO, Mac::ZERO));
    let hop = NextHop { until: now + NextHop::VALID, destination, source, generation };
    table::note_next_hop(subnet, peer.public_ip, &hop);
    Found { hop, is_new: true }
}

impl Found {
    /// Sends a packet there.
    #[inline(always)]
    pub(crate) fn send(&self, skb: &mut Skb, node: &Node) -> Result<(), Reason> {
        if self.is_new {
            skb.route(node.underlay)
        } else {
            send(skb, node, self.hop.destination, self.hop.source)
        }
    }
}

/// Sends a packet out of the underlay with these Ethernet addresses, or by the kernel's routing where those are zero.
#[inline(always)]
pub(crate) fn send(skb: &mut Skb, node: &Node, destination: Mac, source: Mac) -> Result<(), Reason> {
    // Rules may route marked packets another way.
    if skb.mark() != 0 || destination == Mac::ZERO {
        return skb.route(node.underlay);
    }
    Packet::address(skb, destination, source)?;
    skb.transmit(node.underlay)
}
