//! The programs at the pods' ports, and those that see packets on routes straight to peers.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flannel_common::flow::{BypassEntry, BypassHop, Way};
use flannel_common::maps::{Backend, Node, Peer};
use flannel_common::wire::EthernetHeader;
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_ebpf::arrival::Arrival;
use flannel_ebpf::flows::{self, Exit, Origin};
use flannel_ebpf::frame::Frame as _;
use flannel_ebpf::packet::Packet;
use flannel_ebpf::peers::Peers as _;
use flannel_ebpf::vxlan::Format;
use flannel_ebpf::{guard, inner, udp, vxlan};

use crate::context::Skb;
use crate::flow_table::FlowTable;
use crate::table::Table;
use crate::{action, count, finish, next_hop, node, trace};

/// TC ingress of a pod's port.
#[classifier]
pub fn pod_out(context: TcContext) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    let bytes = skb.len();
    match bypass(&mut skb, node) {
        // The packet is counted for the peer when it comes out of the segmenter.
        Ok((_, Sent::ToSegmenter)) => finish(&skb, Hook::PodOut, Reason::ToSegment),
        Ok((subnet, Sent::ToPeer)) => {
            count::add_sent(subnet, bytes);
            count::add_packet(Hook::PodOut, Reason::Bypassed, bytes);
            trace::report_verdict(&skb, Hook::PodOut, Reason::Bypassed);
            action(Verdict::Forward)
        }
        Err(reason) => {
            let refused = guard::leave_pod(&skb, &Table, node).err();
            finish(&skb, Hook::PodOut, refused.unwrap_or(reason))
        }
    }
}

/// TC egress of a pod's port.
#[classifier]
pub fn pod_in(context: TcContext) -> i32 {
    let skb: Skb = Skb::new(context);
    let reason = flows::leave(&skb, &FlowTable, node(), Exit::Pod);
    finish(&skb, Hook::PodIn, reason)
}

/// TC egress of the underlay, for peers with a route.
#[classifier]
pub fn direct_out(context: TcContext) -> i32 {
    let skb: Skb = Skb::new(context);
    let reason = flows::leave(&skb, &FlowTable, node(), Exit::Underlay);
    finish(&skb, Hook::DirectOut, reason)
}

/// TC ingress of the underlay, for peers with a route.
#[classifier]
pub fn direct_in(context: TcContext) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    // A packet that our XDP program has decapsulated did not come by a route.
    if skb.is_of_vlan() || skb.has_token() {
        return finish(&skb, Hook::DirectIn, Reason::ToStack);
    }
    let bytes = skb.len();
    match receive(&mut skb, node) {
        Ok(subnet) => {
            count::add_received(subnet, bytes);
            finish(&skb, Hook::DirectIn, Reason::Bypassed)
        }
        Err(reason) => {
            // Where there is a tunnel, its program asks the guard.
            let has_tunnel = node.device != 0;
            let refused = if has_tunnel { None } else { guard::admit_plain(&skb, &Table, node).err() };
            finish(&skb, Hook::DirectIn, refused.unwrap_or(reason))
        }
    }
}

/// Sends a packet that came by a route to its pod. Returns the subnet that it is from.
#[inline(always)]
fn receive(skb: &mut Skb, node: &Node) -> Result<Ip4, Reason> {
    let packet = Packet::read(skb)?;
    let (subnet, origin) = (flows::from_peer(&packet, node)?, Origin::Underlay);
    if let Some(left) = flows::bypass(skb, &packet, origin, &FlowTable) {
        return hand_over(skb, &packet, packet.ip.tos, &left).map(|()| subnet);
    }
    match Table.peer(subnet) {
        Some(peer) if peer.direct != 0 => Err(flows::enter(skb, &packet, origin, &FlowTable)),
        _ => Err(Reason::ToStack),
    }
}

/// Decapsulates a packet and sends it to its pod, or else with `mark` into the stack by the flannel device. Returns
/// which.
#[inline(always)]
pub(crate) fn arrive(skb: &mut Skb, node: &Node, arrival: &Arrival, mark: u32) -> Result<Reason, Reason> {
    let origin = Origin::Tunnel(arrival.outer.ip.source(), arrival.is_whole());
    let packet =
        read_learnable(node, || Packet::within(skb, arrival.outer.ethernet, arrival.offset(), arrival.ip));
    // One branch for each case. Without CAP_PERFMON the verifier also follows branches that are not taken
    // (`sanitize_speculative_path`). After a second check for a packet it would see reads of one that does not exist.
    let tos = match packet {
        Err(_) => arrival.admit(skb, &Table, node)?,
        Ok(packet) => {
            if let Some(left) = flows::bypass(skb, &packet, origin, &FlowTable)
                && let Ok(tos) = arrival.tos(skb)
            {
                skb.remove_for_pod(arrival.encapsulation)?;
                return hand_over(skb, &packet, tos, &left).map(|()| Reason::Bypassed);
            }
            let tos = arrival.admit(skb, &Table, node)?;
            flows::enter(skb, &packet, origin, &FlowTable);
            tos
        }
    };
    arrival.strip(skb, node, tos)?;
    enter_stack(skb, node, mark).map(|()| Reason::Forwarded)
}

/// The same for a packet that our XDP program has decapsulated.
#[inline(always)]
pub(crate) fn take_over(skb: &mut Skb, node: &Node, mark: u32) -> Result<Reason, Reason> {
    // The driver keeps the card's checksum report across XDP, and that was about the outer checksum.
    skb.distrust_checksum();
    // The XDP program has asked the guard, but removed the sender's address. This host takes its place.
    let origin = Origin::Tunnel(node.local_ip, false);
    if let Ok(packet) = read_learnable(node, || Packet::read(skb)) {
        if let Some(left) = flows::bypass(skb, &packet, origin, &FlowTable) {
            return hand_over(skb, &packet, packet.ip.tos, &left).map(|()| Reason::Bypassed);
        }
        flows::enter(skb, &packet, origin, &FlowTable);
    }
    enter_stack(skb, node, mark).map(|()| Reason::HandedOver)
}

/// The packet, if its flow can be learned.
#[inline(always)]
fn read_learnable(node: &Node, read: impl FnOnce() -> Result<Packet, Reason>) -> Result<Packet, Reason> {
    if flows::are_learned(node) { read() } else { Err(Reason::ToStack) }
}

#[inline(always)]
fn hand_over(skb: &mut Skb, packet: &Packet, tos: u8, left: &BypassEntry) -> Result<(), Reason> {
    skb.address(left.onward.destination, left.onward.source)?;
    packet.hop(skb, tos)?;
    skb.hand_over(left.interface)
}

#[inline(always)]
fn enter_stack(skb: &mut Skb, node: &Node, mark: u32) -> Result<(), Reason> {
    skb.set_mark(mark);
    skb.receive(node.device)
}

/// Learns from a packet that leaves for a `peer` by the flannel device. Returns its next hop.
#[inline(always)]
pub(crate) fn depart(skb: &Skb, node: &Node, peer: &Peer) -> Result<next_hop::Lookup, Reason> {
    let lookup = next_hop::find(skb, node, peer)?;
    if flows::are_learned(node) {
        let is_segmented = node.backend == Backend::Udp as u32 && !peer.accepts_gso(Table.now());
        let way = match is_segmented {
            true => Way::Segmenter,
            false if Format::of_peer(peer).is_former(node) => Way::FormerTunnel,
            false => Way::Tunnel,
        };
        let onward = BypassHop {
            destination: lookup.hop.destination,
            source: lookup.hop.source,
            public_ip: peer.public_ip,
            vtep_mac: peer.vtep_mac,
            way: way as u16,
            device: lookup.hop.device,
        };
        flows::leave(skb, &FlowTable, node, Exit::Tunnel(onward, lookup.hop.until));
    }
    Ok(lookup)
}

/// Where a packet that bypasses the stack was sent.
enum Sent {
    ToPeer,
    ToSegmenter,
}

#[inline(always)]
fn bypass(skb: &mut Skb, node: &Node) -> Result<(Ip4, Sent), Reason> {
    let packet = Packet::read(skb)?;
    let subnet = flows::to_peer(&packet, node)?;
    let Some(BypassEntry { onward, priority, .. }) = flows::bypass(skb, &packet, Origin::Pod, &FlowTable)
    else {
        Table.peer(subnet).ok_or(Reason::ToStack)?;
        return Err(flows::enter(skb, &packet, Origin::Pod, &FlowTable));
    };
    packet.hop(skb, packet.ip.tos)?;
    skb.set_priority(priority);
    if is_for_segmenter(skb, node, &packet, &onward) {
        return skb.transmit(node.segmenter).map(|()| (subnet, Sent::ToSegmenter));
    }
    if let Err(reason) = wrap(skb, node, &packet, &onward) {
        // The stack may get the packet now, and decrements the TTL itself.
        skb.store(EthernetHeader::LEN, &packet.ip)?;
        return Err(reason);
    }
    next_hop::send(skb, onward.device, onward.destination, onward.source).map(|()| (subnet, Sent::ToPeer))
}

#[inline(always)]
fn is_for_segmenter(skb: &Skb, node: &Node, packet: &Packet, onward: &BypassHop) -> bool {
    let is_by_udp = node.backend == Backend::Udp as u32 && onward.way != Way::Plain as u16;
    is_by_udp && (onward.way == Way::Segmenter as u16 || inner::is_non_tcp_gso(skb, &packet.ip))
}

/// Adds the outer headers to the packet, if it needs any.
#[inline(always)]
fn wrap(skb: &mut Skb, node: &Node, packet: &Packet, onward: &BypassHop) -> Result<(), Reason> {
    if onward.way == Way::Plain as u16 {
        Ok(())
    } else if node.backend == Backend::Udp as u32 {
        udp::wrap(skb, node, onward.public_ip, &packet.ip)
    } else {
        let is_former = node.former_port != 0 && onward.way == Way::FormerTunnel as u16;
        let format = if is_former { Format::former(node) } else { Format::present(node) };
        vxlan::wrap(skb, node, (onward.public_ip, format), (onward.vtep_mac, node.device_mac), &packet.ip)
    }
}
