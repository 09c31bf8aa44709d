//! The next hop over the underlay. The kernel owns routes and neighbours. The programs look them up from time to time
//! (`bpf_fib_lookup`), and send packets to the last result in between.

use flannel_common::maps::{NextHop, Node, Peer};
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::Flows as _;
use flannel_ebpf::frame::{FlowFrame as _, Frame as _};

use crate::context::Skb;
use crate::flow_table::FlowTable;
use crate::table;

/// The result of a lookup of the next hop to a peer.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    /// The next hop.
    pub hop: NextHop,
    /// The peer's public address.
    public_ip: Ip4,
    /// Whether the kernel has just been asked. Then the kernel routes this packet, which keeps the neighbour from
    /// becoming stale, and the packets behind it go to this next hop.
    is_new: bool,
}

/// Looks up the next hop to a `peer`.
#[inline(always)]
pub(crate) fn find(skb: &Skb, node: &Node, peer: &Peer) -> Lookup {
    let public_ip = peer.public_ip;
    // Rules may route marked packets differently.
    if skb.mark() != 0 {
        return Lookup { hop: NextHop::UNKNOWN, public_ip, is_new: true };
    }
    let (now, generation) = (FlowTable.now(), FlowTable.generation());
    if peer.next_hop.holds(now, generation) {
        return Lookup { hop: peer.next_hop, public_ip, is_new: false };
    }
    let addresses = skb.next_hop(node.underlay, node.local_ip, public_ip);
    // Not every link has Ethernet addresses, and not every neighbour is known yet.
    let (destination, source) = addresses.unwrap_or((Mac::ZERO, Mac::ZERO));
    let hop = NextHop { until: now + NextHop::VALID, destination, source, generation };
    Lookup { hop, public_ip, is_new: true }
}

impl Lookup {
    /// Sends a packet to the next hop, for the peer of `subnet`.
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

/// Sends a packet out of the underlay with these Ethernet addresses. If they are zero, the kernel routes it.
#[inline(always)]
pub(crate) fn send(skb: &mut Skb, node: &Node, destination: Mac, source: Mac) -> Result<(), Reason> {
    // Rules may route marked packets differently.
    if skb.mark() != 0 || destination == Mac::ZERO {
        return skb.route(node.underlay);
    }
    skb.address(destination, source)?;
    skb.transmit(node.underlay)
}
