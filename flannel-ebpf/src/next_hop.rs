//! The way over the underlay. Routing and neighbours are the kernel's: it is asked now and then, and in between packets
//! go where it has sent the ones before.

use flannel_common::maps::{NextHop, Node, Peer};
use flannel_common::wire::{ETHER_TYPE_IPV4, EthernetHeader};
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::Flows as _;
use flannel_ebpf::frame::{FlowFrame as _, Frame as _};

use crate::context::Skb;
use crate::learned::Learned;
use crate::table;

/// Sends a packet from `source` to `destination` out of the underlay towards the `peer` of `subnet`.
#[inline(always)]
pub(crate) fn send(
    skb: &mut Skb,
    node: &Node,
    (subnet, peer): (Ip4, &Peer),
    (source, destination): (Ip4, Ip4),
) -> Result<(), Reason> {
    // Rules may route marked packets another way.
    if skb.mark() != 0 {
        return skb.route(node.underlay);
    }
    let (now, generation) = (Learned.now(), Learned.generation());
    let known = &peer.next_hop;
    if !known.holds(now, generation) {
        let found = skb.next_hop(node.underlay, source, destination);
        table::note_next_hop(subnet, peer.public_ip, found, now + NextHop::VALID, generation);
        return skb.route(node.underlay);
    }
    // Not every link has addresses, nor is every neighbour known yet.
    if known.destination == Mac::ZERO {
        return skb.route(node.underlay);
    }
    let NextHop { destination, source, .. } = *known;
    skb.store(0, &EthernetHeader { destination, source, ether_type: ETHER_TYPE_IPV4 })?;
    skb.transmit(node.underlay)
}
