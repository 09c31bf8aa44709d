//! The hosts of the packet tests, and frames between them, good and bad.

use etherparse::{IpNumber, PacketBuilder};
use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::{Ip4, Mac};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::model::Table;
use proptest::prelude::*;

pub const LOCAL: [u8; 4] = [192, 168, 77, 11];
pub const PEERS: [([u8; 4], [u8; 4], [u8; 6]); 2] = [
    ([10, 5, 2, 0], [192, 168, 77, 12], [0x02, 0, 0, 0, 0, 0x12]),
    ([10, 5, 3, 0], [192, 168, 77, 13], [0x02, 0, 0, 0, 0, 0x13]),
];
pub const STRANGER: [u8; 4] = [192, 168, 77, 99];
pub const DEVICE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
pub const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 1, 1];
pub const VNI: u32 = 1;

/// Fields the kernel fills from a hash of its own: identification and checksum of the outer IPv4 header,
/// and VXLAN's source port.
const HASHED: [std::ops::Range<usize>; 3] = [18..20, 24..26, 34..36];

/// By which flows are spread.
pub const FLOW_SEED: u64 = 0x5eed_0123_4567_f10a;

pub fn node(encapsulation: Encapsulation, guard: Guard) -> Node {
    let (vni, port) = match encapsulation {
        Encapsulation::Udp => (0, 8285),
        Encapsulation::Vxlan => (VNI, 8472),
    };
    Node {
        backend: 0,
        device: 4242,
        underlay: 4243,
        segmenter: 4244,
        local_ip: Ip4::from_octets(LOCAL),
        subnet: Ip4::from_octets([10, 5, 1, 0]),
        netmask: Ip4::netmask(24),
        vni,
        port,
        guard: guard as u32,
        bypass: 0,
        copied_tos: 0,
        flow_seed: FLOW_SEED,
        device_mac: Mac(DEVICE_MAC),
        carrier: 0,
        outer_mtu: 1500,
        ..Node::UNSET
    }
}

pub fn peers() -> Vec<(Ip4, Peer)> {
    PEERS
        .iter()
        .map(|(subnet, public_ip, mac)| {
            let peer = Peer {
                public_ip: Ip4::from_octets(*public_ip),
                vtep_mac: Mac(*mac),
                vni: VNI,
                port: 8472,
                whole: u32::MAX,
                ..Peer::default()
            };
            (Ip4::from_octets(*subnet), peer)
        })
        .collect()
}

pub fn table() -> Table {
    let mut table = Table::default();
    for (subnet, peer) in peers() {
        table.insert(subnet, peer);
    }
    table
}

/// Blanks what cannot be equal between the kernel and the model in an encapsulated frame.
pub fn without_hash(mut frame: Vec<u8>) -> Vec<u8> {
    for range in HASHED {
        if let Some(bytes) = frame.get_mut(range) {
            bytes.fill(0);
        }
    }
    frame
}

/// An inner frame: UDP with a payload of `payload` bytes.
#[derive(Clone, Debug)]
pub struct Inner {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub destination_mac: [u8; 6],
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    pub payload: usize,
}

impl Inner {
    pub fn new(source: [u8; 4], destination: [u8; 4]) -> Self {
        Self { source, destination, destination_mac: DEVICE_MAC, tos: 0, ttl: 63, id: 7, payload: 40 }
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = ethernet_ipv4(POD_MAC, self.destination_mac, self.source, self.destination, self.ttl);
        frame.ip.dscp = (self.tos >> 2).try_into().unwrap();
        frame.ip.ecn = (self.tos & 3).try_into().unwrap();
        frame.ip.identification = self.id;
        frame.write(4000, 53, &vec![0x5a; self.payload])
    }
}

struct Builder {
    macs: ([u8; 6], [u8; 6]),
    ip: etherparse::Ipv4Header,
}

fn ethernet_ipv4(source: [u8; 6], destination: [u8; 6], from: [u8; 4], to: [u8; 4], ttl: u8) -> Builder {
    let mut ip = etherparse::Ipv4Header::new(0, ttl, IpNumber::UDP, from, to).unwrap();
    ip.dont_fragment = false;
    Builder { macs: (source, destination), ip }
}

impl Builder {
    fn write(self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(etherparse::IpHeaders::Ipv4(self.ip, etherparse::Ipv4Extensions::default()))
            .udp(from, to)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }
}

/// A tunnel packet as another host sends it.
#[derive(Clone, Debug)]
pub struct Outer {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub tos: u8,
    pub port: u16,
    pub fragment: u16,
    pub vxlan_flags: u8,
    pub vni: u32,
    pub inner: Inner,
}

impl Outer {
    pub fn new(source: [u8; 4], port: u16, inner: Inner) -> Self {
        Self { source, destination: LOCAL, tos: 0, port, fragment: 0, vxlan_flags: 8, vni: VNI, inner }
    }

    pub fn frame(&self, encapsulation: Encapsulation) -> Vec<u8> {
        let inner = self.inner.frame();
        let payload = match encapsulation {
            Encapsulation::Udp => inner[14..].to_vec(),
            Encapsulation::Vxlan => {
                let mut payload = vec![self.vxlan_flags, 0, 0, 0];
                payload.extend((self.vni << 8).to_be_bytes());
                payload.extend(inner);
                payload
            }
        };
        let mut builder =
            ethernet_ipv4([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 9, 8], self.source, self.destination, 64);
        builder.ip.dscp = (self.tos >> 2).try_into().unwrap();
        builder.ip.ecn = (self.tos & 3).try_into().unwrap();
        builder.ip.more_fragments = self.fragment & 0x2000 != 0;
        builder.ip.fragment_offset = (self.fragment & 0x1fff).try_into().unwrap();
        builder.write(50_000, self.port, &payload)
    }
}

/// The port of a tunnel.
pub const fn port(encapsulation: Encapsulation) -> u16 {
    match encapsulation {
        Encapsulation::Udp => 8285,
        Encapsulation::Vxlan => 8472,
    }
}

fn any_inner() -> impl Strategy<Value = Inner> {
    let source =
        prop_oneof![Just([10, 5, 2, 9]), Just([10, 5, 3, 9]), Just([10, 5, 1, 9]), Just([8, 8, 8, 8])];
    let destination = prop_oneof![
        3 => Just([10, 5, 1, 7]),
        2 => Just([10, 5, 2, 7]),
        1 => Just([10, 5, 200, 7]),
        1 => any::<[u8; 4]>()
    ];
    let mac = prop_oneof![5 => Just(DEVICE_MAC), 1 => any::<[u8; 6]>()];
    (source, destination, mac, any::<u8>(), any::<u8>(), any::<u16>(), 0usize..1400).prop_map(
        |(source, destination, destination_mac, tos, ttl, id, payload)| Inner {
            source,
            destination,
            destination_mac,
            tos,
            ttl,
            id,
            payload,
        },
    )
}

/// Damage to a frame: bytes overwritten, then the end cut off.
fn any_damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)> {
    let flips = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ];
    (flips, prop::option::weighted(0.15, any::<prop::sample::Index>()))
}

/// Shortest frame `BPF_PROG_TEST_RUN` takes as an skb: Ethernet and an IPv4 header.
const SHORTEST: usize = 34;

fn damaged(
    mut frame: Vec<u8>,
    flips: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
) -> Vec<u8> {
    // Only the headers: a payload byte changes nothing.
    let headers = frame.len().min(92);
    for (index, byte) in flips {
        frame[index.index(headers)] = *byte;
    }
    if let Some(index) = cut {
        frame.truncate(SHORTEST.max(index.index(headers.max(1))));
    }
    frame
}

/// A frame as a pod or the host sends it, mostly to a peer.
pub fn any_outgoing() -> impl Strategy<Value = Vec<u8>> {
    (any_inner(), any_damage()).prop_map(|(inner, (flips, cut))| damaged(inner.frame(), &flips, cut))
}

/// A frame as it arrives at the underlay, mostly for the tunnel.
pub fn any_incoming(encapsulation: Encapsulation) -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![3 => Just(PEERS[0].1), 3 => Just(PEERS[1].1), 1 => Just(STRANGER)];
    let destination = prop_oneof![9 => Just(LOCAL), 1 => any::<[u8; 4]>()];
    let port = prop_oneof![9 => Just(port(encapsulation)), 1 => any::<u16>()];
    let fragment = prop_oneof![9 => Just(0), 1 => prop_oneof![Just(0x2000), Just(0x0003), Just(0x2005)]];
    let flags = prop_oneof![9 => Just(8), 1 => any::<u8>()];
    let vni = prop_oneof![9 => Just(VNI), 1 => 0u32..0x0100_0000];
    ((source, destination, any::<u8>(), port), (fragment, flags, vni), any_inner(), any_damage()).prop_map(
        move |((source, destination, tos, port), (fragment, vxlan_flags, vni), inner, (flips, cut))| {
            let outer = Outer { source, destination, tos, port, fragment, vxlan_flags, vni, inner };
            damaged(outer.frame(encapsulation), &flips, cut)
        },
    )
}

/// The clock of the programs, in nanoseconds.
pub fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap()
}
