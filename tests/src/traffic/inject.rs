//! Tunnel packets made by hand: what a peer, or somebody else, might send.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::Result;
use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, UdpHeader};
use nix::sys::socket::{LinkAddr, MsgFlags, sendto, setsockopt, sockopt};

use super::Endpoint;
use super::capture::packet_socket;
use crate::namespace::Namespace;

/// How an inner packet is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Stock flannel's UDP format.
    Udp,
    /// VXLAN with VNI 1, addressed to that VTEP.
    Vxlan([u8; 6]),
}

impl Format {
    /// The port of the tunnel.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Udp => 8285,
            Self::Vxlan(_) => 8472,
        }
    }

    /// What stands before the inner packet.
    #[must_use]
    pub fn header(self) -> Vec<u8> {
        match self {
            Self::Udp => Vec::new(),
            // Flags "I", VNI 1; then the frame: to the VTEP, from another one, IPv4.
            Self::Vxlan(vtep) => {
                let vxlan = [8, 0, 0, 0, 0, 0, 1, 0];
                let source = [0x02, 0, 0, 0, 0, 0x66];
                [&vxlan[..], &vtep, &source, &[8, 0]].concat()
            }
        }
    }
}

/// Source port of inner packets.
pub const SOURCE_PORT: u16 = 4000;

/// An inner packet: a UDP datagram without payload.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Who is said to have sent it.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// Destination port, by which it is recognised.
    pub port: u16,
    /// The ECN field, two bits.
    pub ecn: u8,
}

impl Inner {
    /// The payload of the outer UDP datagram.
    ///
    /// # Errors
    /// The ECN field has more than two bits.
    pub fn wrapped(&self, format: Format) -> Result<Vec<u8>> {
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let udp_length = u16::try_from(UdpHeader::LEN)?;
        let mut ip = Ipv4Header::new(udp_length, 63, IpNumber::UDP, source, destination)?;
        (ip.dscp, ip.ecn) = (IpDscp::default(), IpEcn::try_new(self.ecn)?);
        ip.header_checksum = ip.calc_header_checksum();
        let udp = UdpHeader::with_ipv4_checksum(SOURCE_PORT, self.port, &ip, &[])?;
        let mut bytes = format.header();
        ip.write(&mut bytes)?;
        udp.write(&mut bytes)?;
        Ok(bytes)
    }
}

/// Sends tunnel packets to a host.
#[derive(Debug)]
pub struct Injector {
    socket: UdpSocket,
    to: SocketAddrV4,
    format: Format,
}

impl Injector {
    /// Sends from one machine to another.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn new(from: &Endpoint, to: &Endpoint, format: Format) -> Result<Self> {
        let socket = from.namespace.within(|| Ok(UdpSocket::bind((from.address, 0))?))?;
        Ok(Self { socket, to: SocketAddrV4::new(to.address, format.port()), format })
    }

    /// Sends `count` packets, with that ECN field in the outer header.
    ///
    /// # Errors
    /// The kernel refuses to send.
    pub fn send(&self, inner: &Inner, outer_ecn: u8, count: usize) -> Result<()> {
        setsockopt(&self.socket, sockopt::Ipv4Tos, &i32::from(outer_ecn))?;
        let payload = inner.wrapped(self.format)?;
        for _ in 0..count {
            // Not connected: it does not hear that nobody listens there.
            self.socket.send_to(&payload, self.to)?;
        }
        Ok(())
    }
}

/// Sends frames as they are out of an interface.
#[derive(Debug)]
pub struct FrameInjector {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl FrameInjector {
    /// Sends out of the interface of `machine` with this name.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn new(machine: &Namespace, interface: &str) -> Result<Self> {
        let (socket, interface) = packet_socket(machine, interface)?;
        Ok(Self { socket, interface })
    }

    /// Sends `count` copies of a frame.
    ///
    /// # Errors
    /// The kernel refuses to send.
    pub fn send(&self, frame: &[u8], count: usize) -> Result<()> {
        for _ in 0..count {
            sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty())?;
        }
        Ok(())
    }
}
