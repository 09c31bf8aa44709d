//! A host with peers by number, and packets to and from them.

use std::net::Ipv4Addr;

use anyhow::Result;
use etherparse::PacketBuilder;
use flannel_common::maps::{Guard, NextHop, Node, Peer};
use flannel_common::{Ip4, Mac};

use crate::traffic::inject::{Format, Inner};

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 11);
const POD: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 2);
const DEVICE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

/// The format a program speaks.
pub(super) const UDP: Format = Format::Udp;
pub(super) const VXLAN: Format = Format::Vxlan(DEVICE_MAC);

/// The host: the network is 10.0.0.0/8, its subnet the last of it.
pub(super) fn node(format: Format) -> Node {
    Node {
        device: 4242,
        underlay: 4243,
        local_ip: LOCAL.into(),
        subnet: Ip4::from_octets([10, 255, 255, 0]),
        netmask: Ip4::netmask(24),
        vni: u32::from(format != UDP),
        port: format.port().into(),
        guard: Guard::Strict as u32,
        device_mac: Mac(DEVICE_MAC),
        ..Node::UNSET
    }
}

/// The first address of a peer's subnet.
pub(super) fn subnet(number: u32) -> Ipv4Addr {
    Ipv4Addr::from((10 << 24) + (number << 8))
}

/// A peer.
pub(super) fn peer(number: u32) -> Peer {
    let [a, b, c, d] = number.to_be_bytes();
    // It always takes packets whole: none goes through the segmenter.
    Peer {
        public_ip: public_ip(number).into(),
        vtep_mac: Mac([0x02, 1, a, b, c, d]),
        direct: 0,
        vni: 1,
        port: VXLAN.port().into(),
        whole: u32::MAX,
        // As between two questions to the kernel.
        next_hop: NextHop { until: u64::MAX, device: 4243, ..NextHop::UNKNOWN },
    }
}

fn public_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from((172 << 24) + (16 << 16) + number)
}

fn pod(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet(number)) + 2)
}

/// A packet of the host's pod to one of a peer.
pub(super) fn outgoing(number: u32) -> Result<Vec<u8>> {
    udp([OTHER_MAC, DEVICE_MAC], [POD, pod(number)], 53, &[0x5a; 40])
}

/// A tunnel packet of a peer's pod to the host's.
pub(super) fn incoming(number: u32, format: Format) -> Result<Vec<u8>> {
    let inner = Inner { source: pod(number), destination: POD, port: 53, ecn: 0 };
    udp([OTHER_MAC, DEVICE_MAC], [public_ip(number), LOCAL], format.port(), &inner.wrapped(format)?)
}

/// A packet that is for no program: to and from others, not of the tunnel.
pub(super) fn foreign() -> Result<Vec<u8>> {
    let others = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    udp([OTHER_MAC, DEVICE_MAC], others, 53, &[0x5a; 40])
}

fn udp(macs: [[u8; 6]; 2], addresses: [Ipv4Addr; 2], port: u16, payload: &[u8]) -> Result<Vec<u8>> {
    let [from, to] = addresses.map(|address| address.octets());
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]).ipv4(from, to, 63);
    builder.udp(port, port).write(&mut frame, payload)?;
    Ok(frame)
}
