//! The outer IPv4 and UDP headers both encapsulations share.

use flannel_common::maps::{Carrier, Node};
use flannel_common::wire::{
    ETHER_TYPE_IPV4, EthernetHeader, IPV4_NO_OPTIONS, Ipv4Header, OUTER_TTL, PROTOCOL_UDP, UdpHeader,
};
use flannel_common::{Ip4, Reason};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::ecn;

/// The headers in front of the tunnel's own.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct OuterHeaders {
    /// Ethernet.
    pub ethernet: EthernetHeader,
    /// IPv4, if the Ethernet header says so.
    pub ip: Ipv4Header,
    /// UDP, if the IPv4 header says so.
    pub udp: UdpHeader,
}

impl OuterHeaders {
    /// Bytes of the three headers.
    pub const LEN: u32 = EthernetHeader::LEN + Ipv4Header::LEN + UdpHeader::LEN;

    /// Whether this is a packet of the tunnel for this host: UDP without IP options to the tunnel's port at the host's
    /// address, and not a later fragment, which has no port.
    #[must_use]
    #[inline(always)]
    pub fn is_for(&self, node: &Node) -> bool {
        self.ethernet.ether_type == ETHER_TYPE_IPV4
            && self.ip.version_ihl == IPV4_NO_OPTIONS
            && self.ip.protocol == PROTOCOL_UDP
            && is_port_of_tunnel(self.udp.destination.get(), node)
            && self.ip.destination() == node.local_ip
            && !self.ip.is_later_fragment()
    }
}

/// Whether packets of the tunnel are taken at that UDP port.
#[inline(always)]
#[must_use]
pub const fn is_port_of_tunnel(port: u16, node: &Node) -> bool {
    let port = port as u32;
    port == node.port || node.former_port != 0 && port == node.former_port
}

/// Checks that programs carry the tunnel's packets. The error says who does instead.
#[inline(always)]
pub const fn check_carrier(node: &Node) -> Result<(), Reason> {
    const STACK: u16 = Carrier::Stack as u16;
    const PROGRAMS: u16 = Carrier::Programs as u16;
    match node.carrier {
        PROGRAMS => Ok(()),
        STACK => Err(Reason::LeftToPolicy),
        _ => Err(Reason::AgainstPolicy),
    }
}

/// The outer IPv4 header in front of `inner`, with `payload` bytes behind it.
///
/// "Don't fragment" stays clear, as with the kernel's vxlan device. The identification follows the inner one: it counts
/// up within a flow, as GRO requires (`inet_gro_receive`, later `inet_gro_flush`), and differs between flows.
#[inline(always)]
#[must_use]
pub fn ip_header(node: &Node, to: Ip4, inner: &Ipv4Header, flow_hash: u32, payload: u32) -> Ipv4Header {
    let mut header = Ipv4Header {
        version_ihl: IPV4_NO_OPTIONS,
        tos: tos(node, inner.tos),
        total_len: length(Ipv4Header::LEN + payload),
        id: U16::new(inner.id.get().wrapping_add(flow_hash as u16)),
        fragment: U16::ZERO,
        ttl: OUTER_TTL,
        protocol: PROTOCOL_UDP,
        checksum: U16::ZERO,
        source: node.local_ip.octets(),
        destination: to.octets(),
    };
    header.checksum = header.computed_checksum();
    header
}

/// The outer TOS byte. It has no DSCP, as with the kernel's vxlan device and stock flannel, unless the host is
/// configured to copy it.
#[inline(always)]
const fn tos(node: &Node, inner: u8) -> u8 {
    ecn::encapsulate(inner) | (inner & node.copied_tos as u8)
}

/// The outer UDP header of the ports, with `payload` bytes behind it. It has no checksum, as IPv4 allows and RFC 7348 recommends: the
/// inner packet has its own.
#[inline(always)]
#[must_use]
pub const fn udp_header(source: u16, destination: u16, payload: u32) -> UdpHeader {
    UdpHeader {
        source: U16::new(source),
        destination: U16::new(destination),
        len: length(UdpHeader::LEN + payload),
        checksum: U16::ZERO,
    }
}

/// A length field. It is zero for a super-packet that is longer than the field can hold, as in the kernel, which writes
/// the fields when it segments the super-packet (`inet_gso_segment`, `__skb_udp_tunnel_segment`).
#[inline(always)]
const fn length(bytes: u32) -> U16 {
    if bytes > u16::MAX as u32 { U16::ZERO } else { U16::new(bytes as u16) }
}

#[cfg(test)]
mod tests {
    use super::tos;
    use flannel_common::maps::Node;

    #[test]
    fn every_tos_byte() {
        let copying = Node { copied_tos: Node::DSCP, ..Node::UNSET };
        for inner in u8::MIN..=u8::MAX {
            let (plain, copied) = (tos(&Node::UNSET, inner), tos(&copying, inner));
            assert_eq!(plain >> 2, 0, "inner {inner:08b}");
            assert_eq!(copied >> 2, inner >> 2, "inner {inner:08b}");
            assert_eq!(copied & 0b11, plain, "congestion is reported the same, inner {inner:08b}");
        }
    }
}
