//! VXLAN (RFC 7348), as the kernel's vxlan device and stock flannel speak it.

use flannel_common::maps::{Node, Peer};
use flannel_common::wire::{
    ETHER_TYPE_IPV4, EthernetHeader, Ipv4Header, UdpHeader, VXLAN_FLAG_VNI, VxlanHeader, VxlanStack,
};
use flannel_common::{Ip4, Mac, Reason};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::arrival::Arrival;
use crate::frame::{Encapsulation, Frame, SendFrame};
use crate::inner;
use crate::outer::{self, OuterHeaders};
use crate::peers::Peers;

/// The headers behind the outer UDP header.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
struct TunnelHeaders {
    vxlan: VxlanHeader,
    ethernet: EthernetHeader,
    ip: Ipv4Header,
}

/// Adds the outer headers to a frame that leaves by the flannel device, for the peer that leases its destination.
/// Returns that peer's subnet and what `depart` returns for the frame as it leaves the stack. If that is a reason, the
/// frame stays as it is.
#[inline(always)]
pub fn encapsulate<F: SendFrame, T>(
    frame: &mut F,
    peers: &impl Peers,
    node: &Node,
    depart: impl FnOnce(&F, &Peer) -> Result<T, Reason>,
) -> Result<(Ip4, T), Reason> {
    let inner = inner::headers(frame)?;
    let subnet = inner.ip.destination().masked(node.netmask);
    let peer = peers.peer(subnet).ok_or(Reason::ForeignPeer)?;
    outer::check_carrier(node)?;
    let departed = depart(frame, &peer)?;
    wrap(frame, node, peer.public_ip, (peer.vtep_mac, inner.ethernet.source), &inner.ip)?;
    Ok((subnet, departed))
}

/// Adds the outer headers to the frame of `inner`, for the peer at `public_ip`. The inner Ethernet header goes from
/// `source` to the VTEP `destination`.
#[inline(always)]
pub fn wrap(
    frame: &mut impl SendFrame,
    node: &Node,
    public_ip: Ip4,
    (destination, source): (Mac, Mac),
    inner: &Ipv4Header,
) -> Result<(), Reason> {
    let flow_hash = frame.flow_hash();
    let payload = VxlanHeader::LEN + frame.len();
    let stack = VxlanStack {
        ip: outer::ip_header(node, public_ip, inner, flow_hash, UdpHeader::LEN + payload),
        udp: outer::udp_header(source_port(flow_hash), node, payload),
        vxlan: VxlanHeader::new(node.vni),
        ethernet: EthernetHeader {
            destination: destination.by_words(),
            source: source.by_words(),
            ether_type: ETHER_TYPE_IPV4,
        },
    };
    frame.insert(Encapsulation::Vxlan)?;
    frame.store(EthernetHeader::LEN, &stack)
}

/// Removes the outer headers of a frame that arrived at the underlay and addresses it to the flannel device. Returns
/// the subnet that the packet is from.
#[inline(always)]
pub fn decapsulate(frame: &mut impl Frame, peers: &impl Peers, node: &Node) -> Result<Ip4, Reason> {
    open(frame, node)?.decapsulate(frame, peers, node)
}

/// Reads the headers of a frame that arrived at the underlay.
#[inline(always)]
pub fn open(frame: &impl Frame, node: &Node) -> Result<Arrival, Reason> {
    let outer: OuterHeaders = frame.load(0).map_err(|_| Reason::NotTunnel)?;
    if !outer.is_for(node) {
        return Err(Reason::NotTunnel);
    }
    let tunnel: TunnelHeaders = frame.load(OuterHeaders::LEN)?;
    check(&tunnel, node)?;
    let TunnelHeaders { ethernet, ip, .. } = tunnel;
    Ok(Arrival { encapsulation: Encapsulation::Vxlan, outer, from: ethernet.source, ip })
}

#[inline(always)]
fn check(tunnel: &TunnelHeaders, node: &Node) -> Result<(), Reason> {
    // The reserved bits are ignored on receipt (RFC 7348, section 5).
    if tunnel.vxlan.flags.get() & VXLAN_FLAG_VNI == 0 {
        return Err(Reason::BadVxlanFlags);
    }
    if tunnel.vxlan.vni() != node.vni {
        return Err(Reason::NotOurVni);
    }
    if tunnel.ethernet.ether_type != ETHER_TYPE_IPV4 {
        return Err(Reason::InnerNotIpv4);
    }
    if tunnel.ethernet.destination != node.device_mac {
        return Err(Reason::BadInnerMac);
    }
    inner::check(&tunnel.ip)
}

/// A port of the dynamic range (RFC 7348, section 5), the same for all packets of a flow. By it the underlay spreads
/// flows over its paths and queues.
#[inline(always)]
const fn source_port(flow_hash: u32) -> u16 {
    0xc000 | (flow_hash ^ (flow_hash >> 16)) as u16
}
