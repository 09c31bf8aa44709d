//! The inner packet: read on its way out, written on its way in.

use flannel_common::maps::Node;
use flannel_common::wire::{ETHER_TYPE_IPV4, EthernetHeader, Ipv4Header, PROTOCOL_TCP, update_checksum};
use flannel_common::{Mac, Reason};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::frame::Frame;

/// The first headers of a packet outside a tunnel.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct InnerHeaders {
    /// Ethernet.
    pub ethernet: EthernetHeader,
    /// IPv4.
    pub ip: Ipv4Header,
}

const TOS_OFFSET: u32 = EthernetHeader::LEN + 1;
const CHECKSUM_OFFSET: u32 = EthernetHeader::LEN + 10;

/// The headers of a packet outside a tunnel; [`Reason::NotIpv4`] for one that the tunnel cannot carry.
#[inline(always)]
pub fn headers(frame: &impl Frame) -> Result<InnerHeaders, Reason> {
    let inner: InnerHeaders = frame.load(0)?;
    if inner.ethernet.ether_type == ETHER_TYPE_IPV4 { Ok(inner) } else { Err(Reason::NotIpv4) }
}

/// Checks whether a received inner header can be one of IPv4. The IP stack checks lengths and the checksum itself
/// (`ip_rcv_core`).
#[inline(always)]
pub fn check(ip: &Ipv4Header) -> Result<(), Reason> {
    if ip.version_ihl >> 4 == 4 && ip.header_len() >= Ipv4Header::LEN {
        Ok(())
    } else {
        Err(Reason::BadIpHeader)
    }
}

/// Whether this is a super-packet of another transport than TCP: of datagrams (`UDP_SEGMENT`), or of a tunnel of the
/// pod's own.
///
/// When a program removes the outer headers of a super-packet, the kernel keeps its mark as tunnelled
/// (`bpf_skb_net_shrink`). That does not matter to TCP. A super-packet of another transport is segmented once more at
/// its receiver, and lost.
#[inline(always)]
pub fn is_non_tcp_gso(frame: &impl Frame, ip: &Ipv4Header) -> bool {
    frame.is_super_packet() && ip.protocol != PROTOCOL_TCP
}

/// Addresses a decapsulated packet to the flannel device and writes the congestion mark it arrived with.
#[inline(always)]
pub fn arrive(
    frame: &mut impl Frame,
    node: &Node,
    from: Mac,
    ip: &Ipv4Header,
    tos: u8,
) -> Result<(), Reason> {
    frame.address(node.device_mac, from)?;
    if tos != ip.tos {
        let checksum = put_tos(frame, ip, tos)?;
        frame.store(CHECKSUM_OFFSET, &checksum)?;
    }
    Ok(())
}

/// Writes the TOS byte of `ip`, outside a tunnel. Returns the header's checksum with it.
#[inline(always)]
pub fn put_tos(frame: &mut impl Frame, ip: &Ipv4Header, tos: u8) -> Result<U16, Reason> {
    frame.store(TOS_OFFSET, &tos)?;
    Ok(update_checksum(ip.checksum, ip.tos.into(), tos.into()))
}
