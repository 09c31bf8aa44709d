//! The headers in the first bytes of a packet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use flannel_common::maps::Node;
use flannel_common::wire::VxlanHeader;
use flannel_ebpf::outer::is_port_of_tunnel;
use serde::Serialize;

/// One header of IP and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Headers {
    /// Sender.
    pub(crate) source: IpAddr,
    /// Receiver.
    pub(crate) destination: IpAddr,
    /// `tcp`, `udp`, `icmp`, or the number of another protocol.
    pub(crate) protocol: String,
    /// Sender's port.
    pub(crate) source_port: Option<u16>,
    /// Receiver's port.
    pub(crate) destination_port: Option<u16>,
    /// Hops left.
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) tos: u8,
}

/// The headers of a packet at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Packet {
    /// Those of the tunnel, where the packet has them.
    pub(crate) outer: Option<Headers>,
    /// Those of the packet between pods, or of a packet that is none of the tunnel's.
    pub(crate) inner: Option<Headers>,
}

impl Packet {
    /// Reads the packet that begins with `bytes`, an Ethernet header.
    pub(crate) fn read(bytes: &[u8], node: &Node) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else { return Self::default() };
        let Some(first) = Headers::of(&packet) else { return Self::default() };
        match tunnelled(&packet, node) {
            Some(payload) => Self { outer: Some(first), inner: inner(payload, node) },
            None => Self { outer: None, inner: Some(first) },
        }
    }
}

/// What the tunnel carries in the packet, if it is one of the tunnel's.
fn tunnelled<'a>(packet: &LaxSlicedPacket<'a>, node: &Node) -> Option<&'a [u8]> {
    match packet.transport.as_ref()? {
        TransportSlice::Udp(udp) if is_port_of_tunnel(udp.destination_port(), node) => Some(udp.payload()),
        _ => None,
    }
}

fn inner(payload: &[u8], node: &Node) -> Option<Headers> {
    let packet = if node.vni == 0 {
        LaxSlicedPacket::from_ip(payload).ok()?
    } else {
        LaxSlicedPacket::from_ethernet(payload.get(VxlanHeader::LEN as usize..)?).ok()?
    };
    Headers::of(&packet)
}

impl Headers {
    fn of(packet: &LaxSlicedPacket<'_>) -> Option<Self> {
        let (source, destination, protocol, ttl, tos) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let tos = header.dcp().value() << 2 | header.ecn().value();
                let ends = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
                (ends.0, ends.1, header.protocol().0, header.ttl(), tos)
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let ends = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
                (ends.0, ends.1, header.next_header().0, header.hop_limit(), header.traffic_class())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let ports = match packet.transport.as_ref() {
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            _ => None,
        };
        Some(Self {
            source,
            destination,
            protocol: match protocol {
                1 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                number => number.to_string(),
            },
            source_port: ports.map(|ports| ports.0),
            destination_port: ports.map(|ports| ports.1),
            ttl,
            tos,
        })
    }

    /// Whether one of its ends is `address`.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.source == address || self.destination == address
    }

    /// Whether one of its ports is `port`.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.source_port == Some(port) || self.destination_port == Some(port)
    }
}

impl fmt::Display for Headers {
    /// `10.5.1.2:4000 > 10.5.2.3:53 udp`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: &IpAddr, port: Option<u16>| match port {
            Some(port) => format!("{address}:{port}"),
            None => address.to_string(),
        };
        let Self { source, destination, protocol, source_port, destination_port, .. } = self;
        write!(f, "{} > {} {protocol}", end(source, *source_port), end(destination, *destination_port))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use flannel_common::maps::Node;

    use super::Packet;

    fn plain() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 5, 1, 2], [10, 5, 2, 3], 63)
            .udp(4000, 53)
            .write(&mut frame, &[0; 600])
            .unwrap();
        frame
    }

    fn tunnelled(port: u16, header: &[u8], inner: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 168, 77, 11], [192, 168, 77, 12], 64)
            .udp(50_000, port)
            .write(&mut frame, &[header, inner].concat())
            .unwrap();
        frame
    }

    fn words(frame: &[u8], node: &Node) -> (Option<String>, Option<String>) {
        // As much as programs report of a packet.
        let packet = Packet::read(&frame[..frame.len().min(256)], node);
        (packet.outer.map(|headers| headers.to_string()), packet.inner.map(|headers| headers.to_string()))
    }

    #[test]
    fn both_formats_are_taken_apart() {
        let inner = Some("10.5.1.2:4000 > 10.5.2.3:53 udp".to_owned());
        let vxlan = Node { vni: 1, port: 8472, ..Node::UNSET };
        let udp = Node { port: 8285, ..Node::UNSET };
        let outer = |port| Some(format!("192.168.77.11:50000 > 192.168.77.12:{port} udp"));
        let frame = tunnelled(8472, &[8, 0, 0, 0, 0, 0, 1, 0], &plain());
        assert_eq!(words(&frame, &vxlan), (outer(8472), inner.clone()));
        assert_eq!(words(&tunnelled(8285, &[], &plain()[14..]), &udp), (outer(8285), inner.clone()));
        assert_eq!(words(&plain(), &udp), (None, inner));
    }

    #[test]
    fn a_packet_that_ends_anywhere_is_read_as_far_as_it_goes() {
        let node = Node { vni: 1, port: 8472, ..Node::UNSET };
        let frame = tunnelled(8472, &[8, 0, 0, 0, 0, 0, 1, 0], &plain());
        for end in 0..frame.len() {
            Packet::read(&frame[..end], &node);
        }
    }
}
