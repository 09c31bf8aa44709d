//! The hosts between which packets go: one that sends and receives, and two peers.

use anyhow::{Context as _, Result};
use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::wire::Ipv4Header;
use flannel_common::{Ip4, Mac};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::model::Table;
use zerocopy::FromBytes as _;

/// Both formats of the tunnel.
pub const ENCAPSULATIONS: [Encapsulation; 2] = [Encapsulation::Udp, Encapsulation::Vxlan];
/// Netmask of every subnet.
pub const NETMASK: Ip4 = Ip4::netmask(24);
/// Subnet, public address and VTEP of the peers.
pub const PEERS: [(Ip4, Ip4, Mac); 2] = [
    (Ip4::from_octets([10, 5, 2, 0]), Ip4::from_octets([192, 168, 77, 12]), Mac([2, 0, 0, 0, 0, 0x12])),
    (Ip4::from_octets([10, 5, 3, 0]), Ip4::from_octets([192, 168, 77, 13]), Mac([2, 0, 0, 0, 0, 0x13])),
];
/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;

/// The host.
#[must_use]
pub fn node(encapsulation: Encapsulation, guard: Guard) -> Node {
    let (vni, port) = match encapsulation {
        Encapsulation::Udp => (0, 8285),
        Encapsulation::Vxlan => (1, 8472),
    };
    Node {
        local_ip: Ip4::from_octets([192, 168, 77, 11]),
        subnet: Ip4::from_octets([10, 5, 1, 0]),
        netmask: NETMASK,
        vni,
        port,
        guard: guard as u32,
        bypass: 0,
        device_mac: Mac([2, 0, 0, 0, 0, 0x11]),
        ..Node::UNSET
    }
}

/// Its peers.
#[must_use]
pub fn table() -> Table {
    let mut table = Table::default();
    for (subnet, public_ip, vtep_mac) in PEERS {
        table.insert(
            subnet,
            Peer { public_ip, vtep_mac, vni: 1, port: 8472, whole: u32::MAX, ..Peer::default() },
        );
    }
    table
}

/// The IPv4 header at `offset` of a frame.
///
/// # Errors
/// The frame ends before it.
pub fn ipv4_header(frame: &[u8], offset: usize) -> Result<Ipv4Header> {
    let header = frame.get(offset..).and_then(|rest| Ipv4Header::read_from_prefix(rest).ok());
    Ok(header.context("no room for an IPv4 header")?.0)
}
