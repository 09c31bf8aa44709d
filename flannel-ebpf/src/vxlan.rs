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

/// Where the outer UDP header begins.
const UDP: u32 = EthernetHeader::LEN + Ipv4Header::LEN;

/// The headers behind the outer UDP header.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
struct TunnelHeaders {
    vxlan: VxlanHeader,
    ethernet: EthernetHeader,
    ip: Ipv4Header,
}

/// What tells the packets of one VXLAN network from those of others on the way to a host.
#[derive(Clone, Copy)]
pub struct Format {
    /// Network identifier.
    pub vni: u32,
    /// UDP port of the receiver.
    pub port: u16,
}

impl Format {
    /// In which `peer` takes packets.
    #[inline(always)]
    #[must_use]
    pub const fn of_peer(peer: &Peer) -> Self {
        Self { vni: peer.vni, port: peer.port as u16 }
    }

    /// The present one of this host.
    #[inline(always)]
    #[must_use]
    pub const fn present(node: &Node) -> Self {
        Self { vni: node.vni, port: node.port as u16 }
    }

    /// The former one of this host.
    #[inline(always)]
    #[must_use]
    pub const fn former(node: &Node) -> Self {
        Self { vni: node.former_vni, port: node.former_port as u16 }
    }

    /// Whether it is the present one of this host, at one of whose ports the packet came. Without a former one there is
    /// no other port.
    #[inline(always)]
    const fn is_present(self, node: &Node) -> bool {
        self.vni == node.vni && (node.former_port == 0 || self.port as u32 == node.port)
    }

    /// Whether it is the former one of this host. Where there is none, asking costs nothing: the verifier knows the
    /// host's values (`bpf_map_direct_read`), and removes what depends on them.
    #[inline(always)]
    #[must_use]
    pub const fn is_former(self, node: &Node) -> bool {
        node.former_port != 0 && self.port as u32 == node.former_port && self.vni == node.former_vni
    }
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
    let macs = (peer.vtep_mac, inner.ethernet.source);
    wrap(frame, node, (peer.public_ip, Format::of_peer(&peer)), macs, &inner.ip)?;
    Ok((subnet, departed))
}

/// Adds the outer headers to the frame of `inner`, for the peer at `public_ip`, in that format. The inner Ethernet header goes from
/// `source` to the VTEP `destination`.
#[inline(always)]
pub fn wrap(
    frame: &mut impl SendFrame,
    node: &Node,
    (public_ip, format): (Ip4, Format),
    (destination, source): (Mac, Mac),
    inner: &Ipv4Header,
) -> Result<(), Reason> {
    let flow_hash = frame.flow_hash();
    let payload = VxlanHeader::LEN + frame.len();
    let stack = VxlanStack {
        ip: outer::ip_header(node, public_ip, inner, flow_hash, UdpHeader::LEN + payload),
        udp: outer::udp_header(source_port(flow_hash), format.port, payload),
        vxlan: VxlanHeader::new(format.vni),
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
    let format = Format { vni: tunnel.vxlan.vni(), port: outer.udp.destination.get() };
    check(&tunnel, format, node)?;
    let TunnelHeaders { ethernet, ip, .. } = tunnel;
    Ok(Arrival { encapsulation: Encapsulation::Vxlan, outer, from: ethernet.source, ip })
}

/// Whether a packet of the tunnel came in the former format. The headers are read again for that: most hosts have no
/// former format, and need not keep what they never ask for.
#[must_use]
#[inline(always)]
pub fn is_former(frame: &impl Frame, node: &Node) -> bool {
    if node.former_port == 0 {
        return false;
    }
    let headers =
        frame.load::<UdpHeader>(UDP).and_then(|udp| Ok((udp, frame.load::<VxlanHeader>(OuterHeaders::LEN)?)));
    headers.is_ok_and(|(udp, vxlan)| Format { vni: vxlan.vni(), port: udp.destination.get() }.is_former(node))
}

#[inline(always)]
fn check(tunnel: &TunnelHeaders, format: Format, node: &Node) -> Result<(), Reason> {
    // The reserved bits are ignored on receipt (RFC 7348, section 5).
    if tunnel.vxlan.flags.get() & VXLAN_FLAG_VNI == 0 {
        return Err(Reason::BadVxlanFlags);
    }
    if !format.is_present(node) && !format.is_former(node) {
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
