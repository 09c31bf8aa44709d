//! The programs at the pods' ports, and those that see packets on routes that lead straight to peers.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flannel_common::flow::Direction;
use flannel_common::maps::{Backend, Node, Peer};
use flannel_common::wire::EthernetHeader;
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_ebpf::frame::Frame as _;
use flannel_ebpf::segment::Packet;
use flannel_ebpf::{flows, udp, vxlan};

use crate::context::Skb;
use crate::learned::Learned;
use crate::table::Table;
use crate::{action, count, next_hop, node, trace, verdict};

/// TC ingress of a pod's port.
#[classifier]
pub fn pod_out(context: TcContext) -> i32 {
    let node = node();
    let mut skb = Skb::new(context);
    let bytes = skb.len();
    match shorten(&mut skb, node) {
        // It is counted for the peer where it comes out of the segmenter.
        Ok((_, Way::Segmenter)) => verdict(&skb, Hook::PodOut, Reason::ToSegment),
        Ok((subnet, Way::Peer)) => {
            count::sent(subnet, bytes);
            count::packet(Hook::PodOut, Reason::Shortened, bytes);
            trace::decided(&skb, Hook::PodOut, Reason::Shortened);
            action(Verdict::Forward)
        }
        Err(reason) => verdict(&skb, Hook::PodOut, reason),
    }
}

/// TC egress of a pod's port.
#[classifier]
pub fn pod_in(context: TcContext) -> i32 {
    let skb = Skb::new(context);
    let reason = flows::leave(&skb, &Learned, node(), Direction::In);
    verdict(&skb, Hook::PodIn, reason)
}

/// TC egress of the underlay, for peers a route leads to.
#[classifier]
pub fn direct_out(context: TcContext) -> i32 {
    let skb = Skb::new(context);
    let reason = flows::leave(&skb, &Learned, node(), Direction::Out);
    verdict(&skb, Hook::DirectOut, reason)
}

/// TC ingress of the underlay, for peers a route leads to.
#[classifier]
pub fn direct_in(context: TcContext) -> i32 {
    let node = node();
    let mut skb = Skb::new(context);
    if skb.is_of_vlan() {
        return verdict(&skb, Hook::DirectIn, Reason::ToStack);
    }
    let bytes = skb.len();
    let shortened = Packet::read(&skb).and_then(|packet| {
        let subnet = flows::from_peer(&packet, &Table, node)?;
        into_pod(&mut skb, packet).map(|()| subnet)
    });
    match shortened {
        Ok(subnet) => {
            count::received(subnet, bytes);
            verdict(&skb, Hook::DirectIn, Reason::Shortened)
        }
        Err(reason) => verdict(&skb, Hook::DirectIn, reason),
    }
}

/// Hands a packet out of the tunnel to its pod; why it must not, where it must not.
#[inline(always)]
pub(crate) fn arrive(skb: &mut Skb, node: &Node) -> Result<(), Reason> {
    if !flows::are_learned(node) {
        return Err(Reason::ToStack);
    }
    let packet = Packet::read(skb)?;
    into_pod(skb, packet)
}

/// Learns from a packet that leaves by the flannel device.
#[inline(always)]
pub(crate) fn depart(skb: &Skb, node: &Node) {
    if flows::are_learned(node) {
        flows::leave(skb, &Learned, node, Direction::Out);
    }
}

#[inline(always)]
fn into_pod(skb: &mut Skb, mut packet: Packet) -> Result<(), Reason> {
    let way = flows::enter(skb, &packet, &Learned, Direction::In)?;
    packet.hop(skb)?;
    packet.address(skb, way.destination, way.source)?;
    skb.hand_over(way.interface)
}

/// Where a shortened packet went.
enum Way {
    Peer,
    Segmenter,
}

#[inline(always)]
fn shorten(skb: &mut Skb, node: &Node) -> Result<(Ip4, Way), Reason> {
    let mut packet = Packet::read(skb)?;
    let (subnet, peer) = flows::to_peer(&packet, &Table, node)?;
    let way = flows::enter(skb, &packet, &Learned, Direction::Out)?;
    let ip = packet.ip;
    packet.hop(skb)?;
    skb.set_priority(way.priority);
    let is_by_udp = node.backend == Backend::Udp as u32 && peer.direct == 0;
    if is_by_udp && !udp::goes_whole(skb, &packet.ip, &peer, &Table) {
        return skb.transmit(node.segmenter).map(|()| (subnet, Way::Segmenter));
    }
    if let Err(reason) = wrap(skb, node, &peer, &packet) {
        // The stack, which may get it now, counts the hop itself.
        skb.store(EthernetHeader::LEN, &ip)?;
        return Err(reason);
    }
    let ends = if peer.direct == 0 {
        (node.local_ip, peer.public_ip)
    } else {
        (packet.ip.source(), packet.ip.destination())
    };
    next_hop::send(skb, node, (subnet, &peer), ends).map(|()| (subnet, Way::Peer))
}

#[inline(always)]
fn wrap(skb: &mut Skb, node: &Node, peer: &Peer, packet: &Packet) -> Result<(), Reason> {
    if peer.direct != 0 {
        return Ok(());
    }
    if node.backend == Backend::Udp as u32 {
        udp::wrap(skb, node, peer, &packet.ip)
    } else if node.backend == Backend::Vxlan as u32 {
        vxlan::wrap(skb, node, peer, node.device_mac, &packet.ip)
    } else {
        Ok(())
    }
}
