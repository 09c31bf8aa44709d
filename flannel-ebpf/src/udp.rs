//! Stock flannel's `udp` format: the bare inner IP packet is the payload of a UDP datagram, which leaves
//! from and arrives at one fixed port.
//!
//! Programs take the inner packet as the kernel left it, possibly a super-packet with a partial checksum. A stock
//! daemon reads it from a socket, so it must be an ordinary packet by then, even if the underlay leaves checksums and
//! segmentation to the receiver, as virtual links do. Their datagrams differ: those of programs have no checksum, those
//! of a socket always have one.

use flannel_common::maps::{Node, Peer};
use flannel_common::wire::{EthernetHeader, Ipv4Header, UdpHeader, UdpStack};
use flannel_common::{Ip4, Reason};

use crate::arrival::Arrival;
use crate::frame::{Encapsulation, Frame, SendFrame};
use crate::outer::{self, OuterHeaders};
use crate::peers::Peers;
use crate::{ecn, inner};

/// Whether a packet to send may still be a super-packet or have a partial checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is as the stack left it.
    AsSent,
    /// It comes from the segmenter.
    Segmented,
}

/// Adds the outer headers to a packet, for the peer that leases its destination. Returns that peer's subnet and what
/// `depart` returns for the packet as it leaves the stack; [`Reason::ToSegment`] if the peer does not take the packet
/// as it is.
#[inline(always)]
pub fn encapsulate<F: SendFrame, T>(
    frame: &mut F,
    peers: &impl Peers,
    node: &Node,
    state: State,
    depart: impl FnOnce(&F, &Peer) -> Result<T, Reason>,
) -> Result<(Ip4, T), Reason> {
    let mut inner = inner::headers(frame)?;
    let subnet = inner.ip.destination().masked(node.netmask);
    let peer = peers.peer(subnet).ok_or(Reason::NoPeer)?;
    outer::check_carrier(node)?;
    let departed = depart(frame, &peer)?;
    let has_programs = peer.accepts_gso(peers.now());
    if state == State::AsSent && (!has_programs || inner::is_non_tcp_gso(frame, &inner.ip)) {
        return Err(Reason::ToSegment);
    }
    if !has_programs {
        // A stock daemon reads the datagram from a socket, which shows no mark of congestion.
        inner.ip.tos = ecn::without(inner.ip.tos);
    }
    match wrap(frame, node, peer.public_ip, &inner.ip) {
        Ok(()) => Ok((subnet, departed)),
        // The segmenter is the only device there is.
        Err(Reason::LeftToDevice) => Err(Reason::ToSegment),
        Err(reason) => Err(reason),
    }
}

/// Adds the outer headers to the packet of `inner`, for the peer at `public_ip`.
#[inline(always)]
pub fn wrap(
    frame: &mut impl SendFrame,
    node: &Node,
    public_ip: Ip4,
    inner: &Ipv4Header,
) -> Result<(), Reason> {
    let flow_hash = frame.flow_hash();
    let payload = frame.len() - EthernetHeader::LEN;
    let stack = UdpStack {
        ip: outer::ip_header(node, public_ip, inner, flow_hash, UdpHeader::LEN + payload),
        udp: outer::udp_header(node.port as u16, node.port as u16, payload),
    };
    frame.insert(Encapsulation::Udp)?;
    frame.store(EthernetHeader::LEN, &stack)
}

/// Removes the outer headers of a packet that arrived at the underlay and addresses it to the flannel device. Returns
/// the subnet that the packet is from.
#[inline(always)]
pub fn decapsulate(frame: &mut impl Frame, peers: &impl Peers, node: &Node) -> Result<Ip4, Reason> {
    open(frame, node)?.decapsulate(frame, peers, node)
}

/// Reads the headers of a packet that arrived at the underlay.
#[inline(always)]
pub fn open(frame: &impl Frame, node: &Node) -> Result<Arrival, Reason> {
    let outer: OuterHeaders = frame.load(0).map_err(|_| Reason::NotTunnel)?;
    if !outer.is_for(node) {
        return Err(Reason::NotTunnel);
    }
    if outer.ip.is_fragment() {
        // No device of the kernel understands this format, so none can reassemble it.
        return Err(Reason::Fragment);
    }
    let ip: Ipv4Header = frame.load(OuterHeaders::LEN)?;
    inner::check(&ip)?;
    Ok(Arrival { encapsulation: Encapsulation::Udp, outer, from: outer.ethernet.source, ip })
}
