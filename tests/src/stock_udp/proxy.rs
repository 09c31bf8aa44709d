//! The loop that copies packets.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use ipnetwork::Ipv4Network;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{DEVICE, Options, READY, tun};

/// Bytes of the smallest IPv4 header.
const HEADER: usize = 20;

struct Proxy {
    tun: File,
    socket: UdpSocket,
    port: u16,
    peers: Vec<(Ipv4Network, Ipv4Addr)>,
    buffer: Vec<u8>,
}

/// Copies packets until something fails.
///
/// # Errors
/// The device or the socket is not available, or fails.
pub fn run(options: Options) -> Result<()> {
    let tun = tun::open(DEVICE)?;
    ip(&format!("address add {}/32 dev {DEVICE}", options.address))?;
    ip(&format!("link set {DEVICE} mtu {} up", options.mtu))?;
    ip(&format!("route add {} dev {DEVICE}", options.network))?;
    let socket = UdpSocket::bind((options.public_ip, options.port)).context("cannot open the port")?;
    socket.set_nonblocking(true)?;
    let buffer = vec![0; options.mtu as usize];
    println!("{READY}");
    Proxy { tun, socket, port: options.port, peers: options.peers, buffer }.run()
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { bail!("ip {arguments}: {status}") }
}

impl Proxy {
    fn run(mut self) -> Result<()> {
        loop {
            let mut ends = [
                PollFd::new(self.tun.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut ends, PollTimeout::NONE)?;
            let (mut sending, mut receiving) = (true, true);
            while sending || receiving {
                sending = is_done(self.send())?;
                receiving = is_done(self.receive())?;
            }
        }
    }

    /// One packet from the device to a peer.
    fn send(&mut self) -> io::Result<()> {
        let length = self.tun.read(&mut self.buffer)?;
        let packet = &mut self.buffer[..length];
        let Some(peer) = destination(packet).and_then(|address| peer_of(&mut self.peers, address)) else {
            return Ok(());
        };
        if pass_on(packet) {
            // A peer that refuses, or a full buffer, loses this packet only.
            drop(self.socket.send_to(packet, (peer, self.port)));
        }
        Ok(())
    }

    /// One packet from anybody to the device.
    fn receive(&mut self) -> io::Result<()> {
        let length = self.socket.recv(&mut self.buffer)?;
        let packet = &mut self.buffer[..length];
        if pass_on(packet) {
            // What the kernel does not take for a packet is lost.
            drop(self.tun.write(packet));
        }
        Ok(())
    }
}

/// Whether a packet was copied; not if there was none.
fn is_done(outcome: io::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // An ICMP message about a datagram sent before.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(16..HEADER)?.try_into().ok()?;
    Some(bytes.into())
}

/// Looks an address up in the list, and moves the peer found to its front.
fn peer_of(peers: &mut [(Ipv4Network, Ipv4Addr)], address: Ipv4Addr) -> Option<Ipv4Addr> {
    let position = peers.iter().position(|(subnet, _)| subnet.contains(address))?;
    peers[..=position].rotate_right(1);
    peers.first().map(|(_, peer)| *peer)
}

/// Takes one hop off the packet and mends its checksum (RFC 1624); not if it had the last one.
fn pass_on(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER>() else { return false };
    if header[8] <= 1 {
        return false;
    }
    header[8] -= 1;
    let sum = u32::from(u16::from_be_bytes([header[10], header[11]])) + 0x100;
    let folded = (sum & 0xffff) as u16 + (sum >> 16) as u16;
    [header[10], header[11]] = folded.to_be_bytes();
    true
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{pass_on, peer_of};

    #[test]
    fn one_hop_less_and_a_right_checksum() {
        for ttl in [64, 2, 255] {
            for number in [0, 1, 0x1234, 0xfeff, 0xffff] {
                let mut header = etherparse::Ipv4Header::new(
                    100,
                    ttl,
                    etherparse::IpNumber::UDP,
                    [10, 5, 1, 2],
                    [10, 5, 7, 2],
                )
                .unwrap();
                header.identification = number;
                header.header_checksum = header.calc_header_checksum();
                let mut packet = header.to_bytes().to_vec();
                assert!(pass_on(&mut packet));
                let (after, _) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
                assert_eq!(
                    (after.time_to_live, after.header_checksum),
                    (ttl - 1, after.calc_header_checksum())
                );
            }
        }
        let mut last_hop = [0; 20];
        last_hop[8] = 1;
        assert!(!pass_on(&mut last_hop));
        assert!(!pass_on(&mut [0x45; 19]));
    }

    #[test]
    fn peer_found_comes_first() {
        let peer = |subnet: u8, host| {
            (format!("10.5.{subnet}.0/24").parse().unwrap(), Ipv4Addr::from([192, 168, 77, host]))
        };
        let mut peers = [peer(1, 11), peer(2, 12), peer(3, 13)];
        assert_eq!(peer_of(&mut peers, Ipv4Addr::new(10, 5, 3, 9)), Some(Ipv4Addr::new(192, 168, 77, 13)));
        assert_eq!(peers, [peer(3, 13), peer(1, 11), peer(2, 12)]);
        assert_eq!(peer_of(&mut peers, Ipv4Addr::new(10, 5, 4, 9)), None);
    }
}
