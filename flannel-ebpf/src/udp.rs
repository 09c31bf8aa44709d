//! Stock flannel's `udp` format: the bare inner IP packet is the payload of a UDP datagram, which leaves
//! from and arrives at one fixed port.

use flannel_common::maps::Node;
use flannel_common::wire::{EthernetHeader, Ipv4Header, UdpHeader, UdpStack};
use flannel_common::{Ip4, Reason};

use crate::frame::{Encapsulation, Frame, SendFrame};
use crate::outer::{self, OuterHeaders};
use crate::peers::Peers;
use crate::{ecn, guard, inner};

/// Gives a packet on its way out of the flannel device the outer headers towards the peer that leases its
/// destination, and returns that peer's subnet.
#[inline(always)]
pub fn encapsulate(frame: &mut impl SendFrame, peers: &impl Peers, node: &Node) -> Result<Ip4, Reason> {
    let inner = inner::to_send(frame)?;
    let subnet = inner.ip.destination().masked(node.netmask);
    let peer = peers.peer(subnet).ok_or(Reason::NoPeer)?;
    let flow_hash = frame.flow_hash();
    let payload = frame.len() - EthernetHeader::LEN;
    let stack = UdpStack {
        ip: outer::ip_header(node, peer.public_ip, &inner.ip, flow_hash, UdpHeader::LEN + payload),
        udp: outer::udp_header(node.port as u16, node, payload),
    };
    frame.insert(Encapsulation::Udp)?;
    frame.store(EthernetHeader::LEN, &stack)?;
    Ok(subnet)
}

/// Takes the outer headers off a packet that arrived at the underlay and addresses it to the flannel
/// device. Returns the subnet the packet came from.
#[inline(always)]
pub fn decapsulate(frame: &mut impl Frame, peers: &impl Peers, node: &Node) -> Result<Ip4, Reason> {
    let outer: OuterHeaders = frame.load(0).map_err(|_| Reason::NotTunnel)?;
    if !outer.is_for(node) {
        return Err(Reason::NotTunnel);
    }
    if outer.ip.is_fragment() {
        // No device of the kernel understands this format: there is none to leave it to.
        return Err(Reason::Fragment);
    }
    let ip: Ipv4Header = frame.load(OuterHeaders::LEN)?;
    inner::check(&ip)?;
    guard::admit(node, peers, outer.ip.source(), &ip)?;
    let tos = ecn::decapsulate(outer.ip.tos, ip.tos)?;
    frame.remove(Encapsulation::Udp)?;
    inner::arrive(frame, node, outer.ethernet.source, &ip, tos)?;
    Ok(ip.source().masked(node.netmask))
}
