//! The packet of a flow: the headers that identify its flow.

use flannel_common::flow::{Direction, FlowKey, SPREAD};
use flannel_common::wire::{
    ETHER_TYPE_IPV4, EthernetHeader, IPV4_NO_OPTIONS, Ipv4Header, PROTOCOL_TCP, PROTOCOL_UDP, UdpHeader,
    update_checksum,
};
use flannel_common::{Ip4, Reason};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::FlowFrame;
use crate::inner;

const PROTOCOL_ICMP: u8 = 1;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO_REQUEST: u8 = 8;
/// The flags FIN, SYN and RST.
const EDGE: u8 = 0b111;
/// The two bits of congestion in the TOS byte.
const ECN: u8 = 0b11;

const TTL_OFFSET: u32 = EthernetHeader::LEN + 8;
/// Where [`Behind`] begins, from the beginning of the IPv4 header.
const BEHIND: u32 = Ipv4Header::LEN + 8;
/// From the beginning of the IPv4 header.
const TCP_OFFSET: u32 = Ipv4Header::LEN + 12;

/// The first headers of every packet of a flow.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
struct Headers {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    transport: Transport,
}

/// The first bytes behind IPv4: the ports of TCP and UDP, or type and identifier of ICMP.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
struct Transport([[u8; 2]; 4]);

/// The bytes behind [`Transport`].
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
struct Behind([[u8; 2]; 4]);

/// The bytes of a TCP header with its length and its flags.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TcpWord {
    offset: u8,
    flags: u8,
}

/// The part of an IPv4 header that a router changes.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C, align(2))]
struct Hop {
    ttl: u8,
    protocol: u8,
    checksum: U16,
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Its Ethernet header; within a tunnel, the outer one.
    pub ethernet: EthernetHeader,
    /// Its IPv4 header.
    pub ip: Ipv4Header,
    /// Whether a connection begins or ends with it.
    pub is_edge: bool,
    /// Where its IPv4 header begins.
    offset: u32,
    source_port: u16,
    destination_port: u16,
    transport_len: u32,
    /// What is behind the ports, or behind type, code and checksum.
    rest: [[u8; 2]; 2],
}

impl Packet {
    /// Reads the headers; [`Reason::ToStack`] for a packet that belongs to no flow.
    #[inline(always)]
    pub fn read(frame: &impl FlowFrame) -> Result<Self, Reason> {
        let Headers { ethernet, ip, transport } = frame.load(0).map_err(|_| Reason::ToStack)?;
        if ethernet.ether_type != ETHER_TYPE_IPV4 {
            return Err(Reason::ToStack);
        }
        Self::of(frame, ethernet, EthernetHeader::LEN, ip, transport)
    }

    /// The same for a packet within a tunnel, whose headers up to `ip`, at `offset`, have been read.
    #[inline(always)]
    pub fn within(
        frame: &impl FlowFrame,
        ethernet: EthernetHeader,
        offset: u32,
        ip: Ipv4Header,
    ) -> Result<Self, Reason> {
        let transport = frame.load(offset + Ipv4Header::LEN).map_err(|_| Reason::ToStack)?;
        Self::of(frame, ethernet, offset, ip, transport)
    }

    #[inline(always)]
    fn of(
        frame: &impl FlowFrame,
        ethernet: EthernetHeader,
        offset: u32,
        ip: Ipv4Header,
        Transport([first, second, third, fourth]): Transport,
    ) -> Result<Self, Reason> {
        if ip.version_ihl != IPV4_NO_OPTIONS || ip.is_fragment() || ip.ttl <= 1 {
            return Err(Reason::ToStack);
        }
        let packet = |source_port, destination_port, transport_len, is_edge| {
            let (source_port, destination_port) =
                (u16::from_ne_bytes(source_port), u16::from_ne_bytes(destination_port));
            let ip = ip.by_words();
            let rest = [third, fourth];
            Self { ethernet, ip, is_edge, offset, source_port, destination_port, transport_len, rest }
        };
        match ip.protocol {
            PROTOCOL_TCP => {
                let tcp: TcpWord = frame.load(offset + TCP_OFFSET).map_err(|_| Reason::ToStack)?;
                Ok(packet(first, second, u32::from(tcp.offset >> 4) * 4, tcp.flags & EDGE != 0))
            }
            PROTOCOL_UDP => Ok(packet(first, second, UdpHeader::LEN, false)),
            PROTOCOL_ICMP if matches!(first[0], ICMP_ECHO_REPLY | ICMP_ECHO_REQUEST) => {
                Ok(packet(third, [first[0], 0], UdpHeader::LEN, false))
            }
            _ => Err(Reason::ToStack),
        }
    }

    /// The flow it belongs to.
    #[must_use]
    #[inline(always)]
    pub fn key(&self, direction: Direction) -> FlowKey {
        FlowKey {
            source: Ip4::from_octets(self.ip.source),
            destination: Ip4::from_octets(self.ip.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.ip.protocol,
            dscp: self.ip.tos & !ECN,
            direction: direction as u16,
        }
    }

    /// Whether it is one of TCP.
    #[must_use]
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.ip.protocol == PROTOCOL_TCP
    }

    /// A number by which this packet is told from others of its flow, whoever sent them; never zero. The stack changes
    /// nothing of what it is made from, unless it translates sequence numbers: the identification of IP, and the
    /// sequence and acknowledgement of TCP, the length of UDP, or the number of an echo, with the begin of the payload.
    /// Checksums are left out, because the stack may complete them (`skb_checksum_help`).
    #[inline(always)]
    pub fn fingerprint(&self, frame: &impl FlowFrame) -> u32 {
        let [third, fourth] = self.rest;
        let fourth = if self.ip.protocol == PROTOCOL_UDP { [0; 2] } else { fourth };
        let Behind([first, second, payload @ ..]) =
            frame.load(self.offset + BEHIND).unwrap_or(Behind([[0; 2]; 4]));
        let payload = if self.is_tcp() { [[0; 2]; 2] } else { payload };
        let word = |halves: [[u8; 2]; 4]| {
            let [first, second, third, fourth] = halves.map(|half| u64::from(u16::from_ne_bytes(half)));
            first | second << 16 | third << 32 | fourth << 48
        };
        let mixed = word([third, fourth, first, second]).wrapping_mul(SPREAD);
        let rest = word([payload[0], payload[1], self.ip.id.to_bytes(), [0; 2]]);
        let mixed = (mixed ^ mixed >> 32 ^ rest).wrapping_mul(SPREAD);
        (mixed >> 32) as u32 | 1
    }

    /// Bytes of the longest packet that this one becomes on the wire, without its Ethernet header.
    #[must_use]
    #[inline(always)]
    pub fn wire_len(&self, frame: &impl FlowFrame) -> u32 {
        match frame.segment_len() {
            0 => frame.len() - self.offset,
            payload => Ipv4Header::LEN + self.transport_len + payload,
        }
    }

    /// Decrements the TTL, as a router does, and writes the TOS byte after decapsulation. The packet is outside a
    /// tunnel.
    #[inline(always)]
    pub fn hop(&self, frame: &mut impl FlowFrame, tos: u8) -> Result<(), Reason> {
        let Ipv4Header { ttl: before, protocol, checksum, .. } = self.ip;
        let ttl = before.wrapping_sub(1);
        let checksum = if tos == self.ip.tos { checksum } else { inner::put_tos(frame, &self.ip, tos)? };
        let [before, after] = [before, ttl].map(|ttl| u16::from_be_bytes([ttl, protocol]));
        frame.store(TTL_OFFSET, &Hop { ttl, protocol, checksum: update_checksum(checksum, before, after) })
    }
}
