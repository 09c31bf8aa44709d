//! Every map once: name, kind, capacity, key and value.
//!
//! Keys and values are plain data without padding, so that the kernel, the daemon and `bpftool` see the same bytes.
//! Capacities are fixed. The kernel allocates all entries at once, except those of [`PEER_COUNTERS`]; the array of flows
//! takes 8 MB.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::addr::{Ip4, Mac};
use crate::flow::{Bypass, CANDIDATE_BYTES, Connection, KnownFlow, MAX_FLOWS, VALID};
use crate::reason::{Hook, Reason};
use crate::trace::{EVENT_BYTES, TraceFilter};

/// Peers a host can have: a /8 network cut in /24 subnets.
pub const MAX_PEERS: u32 = 65_536;
/// Entries of [`PORTS`]: two for each of 16,384 pods behind bridges.
pub const MAX_PORTS: u32 = 32_768;
/// Slots of [`COUNTERS`].
pub const COUNTER_SLOTS: u32 = Hook::ALL.len() as u32 * Reason::SLOTS;

/// Name of the map from a subnet's first address to its [`Peer`].
pub const PEERS: &str = "PEERS";
/// Name of the map from an outer source address to the number of subnets it leases.
pub const SOURCES: &str = "SOURCES";
/// Name of the per-CPU map from [`Hook::slot`] to [`Count`].
pub const COUNTERS: &str = "COUNTERS";
/// Name of the per-CPU map from a subnet's first address to [`PeerCount`].
pub const PEER_COUNTERS: &str = "PEER_COUNTERS";
/// Name of the map from a [`Port`] key to the index of the bridge port behind which it lives.
pub const PORTS: &str = "PORTS";
/// Name of the map with the one [`Node`] the programs were loaded with, kept for readers of the pins.
pub const NODE_INFO: &str = "NODE_INFO";
/// Name of the map with the one [`TraceFilter`].
pub const TRACE_FILTER: &str = "TRACE_FILTER";
/// Name of the ring of [`Event`](crate::trace::Event)s.
pub const EVENTS: &str = "EVENTS";
/// Name of the map from the places of [`FlowKey::place`](crate::flow::FlowKey::place) to [`KnownFlow`].
pub const FLOWS: &str = "FLOWS";
/// Name of the map from the [`Connection`]s that can bypass the stack to the time of their approval, in nanoseconds of
/// `CLOCK_MONOTONIC`.
pub const APPROVED: &str = "APPROVED";
/// Name of the ring of [`Connection`]s for which programs ask the daemon's approval.
pub const CANDIDATES: &str = "CANDIDATES";
/// Name of the map with the generation of the host's state: a change of this number invalidates what was learned.
pub const GENERATION: &str = "GENERATION";
/// Name of the read-only global by which the programs know their [`Node`].
pub const NODE: &str = "NODE";
/// Name of the read-only global, one byte, that is zero where programs are not to count.
pub const COUNTING: &str = "COUNTING";
/// Name of the read-only global, one byte, that is zero where the kernel has no coarse clock.
pub const COARSE_CLOCK: &str = "COARSE_CLOCK";
/// Name of the ring of lines that programs write for the log. It is not pinned: each load of the programs has its own.
pub const LINES: &str = "AYA_LOGS";

/// How a map is organised in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`
    Hash,
    /// `BPF_MAP_TYPE_PERCPU_HASH`
    PerCpuHash,
    /// `BPF_MAP_TYPE_ARRAY`
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash,
    /// `BPF_MAP_TYPE_RINGBUF`
    RingBuf,
}

/// What a map must look like to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Name in the object file, of the pin and in the kernel.
    pub name: &'static str,
    /// Organisation.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity in entries.
    pub max_entries: u32,
}

impl Layout {
    const fn of<K, V>(name: &'static str, kind: Kind, max_entries: u32) -> Self {
        Self { name, kind, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, max_entries }
    }
}

/// Every pinned map.
pub const ALL: [Layout; 12] = [
    Layout::of::<Ip4, Peer>(PEERS, Kind::Hash, MAX_PEERS),
    Layout::of::<Ip4, u32>(SOURCES, Kind::Hash, MAX_PEERS),
    Layout::of::<u32, Count>(COUNTERS, Kind::PerCpuArray, COUNTER_SLOTS),
    Layout::of::<Ip4, PeerCount>(PEER_COUNTERS, Kind::PerCpuHash, MAX_PEERS),
    Layout::of::<Port, u32>(PORTS, Kind::Hash, MAX_PORTS),
    Layout::of::<u32, Node>(NODE_INFO, Kind::Array, 1),
    Layout::of::<u32, TraceFilter>(TRACE_FILTER, Kind::Array, 1),
    Layout::of::<(), ()>(EVENTS, Kind::RingBuf, EVENT_BYTES),
    Layout::of::<u32, KnownFlow>(FLOWS, Kind::Array, MAX_FLOWS),
    Layout::of::<Connection, u64>(APPROVED, Kind::LruHash, MAX_FLOWS),
    Layout::of::<(), ()>(CANDIDATES, Kind::RingBuf, CANDIDATE_BYTES),
    Layout::of::<u32, u32>(GENERATION, Kind::Array, 1),
];

/// Where the subnet of a peer is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Peer {
    /// Outer destination of packets to the peer, and outer source of packets from it.
    pub public_ip: Ip4,
    /// Ethernet address of the peer's VTEP; zero with the UDP backend.
    pub vtep_mac: Mac,
    /// Not zero where a route leads straight to the peer and no program sees its packets.
    pub direct: u16,
    /// The VXLAN network identifier of packets to the peer; zero without VXLAN.
    pub vni: u32,
    /// UDP port at which the peer takes packets of VXLAN, in host byte order; zero without VXLAN.
    pub port: u32,
    /// Written by the programs, only with the UDP backend: when a packet from the peer last showed that it takes
    /// packets whole, super-packets and partial checksums included; seconds of `CLOCK_MONOTONIC`, zero for never.
    /// Programs do; a stock daemon, which reads packets from a socket, does not.
    pub whole: u32,
    /// Written by the programs: how its packets leave by the underlay.
    pub next_hop: NextHop,
}

/// The next hop to a peer, as the kernel's routing last reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHop {
    /// Until when it is valid: nanoseconds of `CLOCK_MONOTONIC_COARSE`; zero for one that is not known.
    pub until: u64,
    /// Its Ethernet address; zero if the kernel did not report it. Then the kernel routes the packets.
    pub destination: Mac,
    /// That of the interface.
    pub source: Mac,
    /// The generation of the host's state when it was reported.
    pub generation: u32,
    /// Interface index of where packets leave.
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}

impl NextHop {
    /// None.
    pub const UNKNOWN: Self =
        Self { until: 0, destination: Mac::ZERO, source: Mac::ZERO, generation: 0, device: 0, reserved: 0 };

    /// How long it is valid, in nanoseconds, like a confirmation of a flow. After that the kernel routes a packet,
    /// which also keeps the neighbour from becoming stale.
    pub const VALID: u64 = VALID;

    /// Whether it is valid `now`, in the present `generation`.
    #[must_use]
    #[inline(always)]
    pub const fn holds(&self, now: u64, generation: u32) -> bool {
        now < self.until && self.generation == generation
    }
}

impl Peer {
    /// One of which nothing is known.
    pub const UNKNOWN: Self = Self {
        public_ip: Ip4::UNSPECIFIED,
        vtep_mac: Mac::ZERO,
        direct: 0,
        vni: 0,
        port: 0,
        whole: u32::MAX,
        next_hop: NextHop::UNKNOWN,
    };

    /// How long a peer is expected to stay as its packets have shown it, in seconds. When stock flannel replaces this
    /// daemon on a host, its peers may have to send first.
    pub const WHOLE_FOR: u32 = 10;

    /// Whether the peer takes packets whole at `now`, in seconds of `CLOCK_MONOTONIC`.
    #[must_use]
    #[inline(always)]
    pub const fn accepts_gso(&self, now: u32) -> bool {
        self.whole != 0 && now.saturating_sub(self.whole) <= Self::WHOLE_FOR
    }
}

/// Packets and bytes. Bytes are those of the inner packet with its Ethernet header; a super-packet
/// counts as one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// What was forwarded to and from one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeerCount {
    /// To the peer.
    pub sent: Count,
    /// From the peer, after the guard.
    pub received: Count,
    /// When the last packet from the peer arrived: nanoseconds of `CLOCK_MONOTONIC`, zero for never.
    pub last_seen: u64,
    /// The same of those in the former format of VXLAN, while that is served.
    pub last_former: u64,
}

/// A pod behind a bridge, or behind one port of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Port {
    /// Interface index of the bridge, or of the port: then the entry leads to that port again, and tells that the
    /// pod is behind it.
    pub bridge: u32,
    /// Ethernet address of the pod.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}

impl Port {
    /// The pod as two words, as they stand in memory; the upper half of the second is zero.
    #[must_use]
    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        let [first, second, third]: [u16; 3] = transmute!(self.mac);
        let [first, second, third] = [first, second, third].map(u64::from);
        [u64::from(self.bridge) | first << 32 | second << 48, third | u64::from(self.reserved) << 16]
    }
}

/// Which backend the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Backend {
    /// Stock flannel's UDP format.
    Udp = 1,
    /// VXLAN.
    Vxlan = 2,
    /// Routes only.
    HostGw = 3,
    /// Leases only.
    Alloc = 4,
    /// Routes of Amazon's cloud.
    AwsVpc = 5,
    /// Routes of Google's cloud.
    Gce = 6,
    /// Routes of Tencent's cloud.
    TencentVpc = 7,
    /// Routes of Alibaba's cloud.
    AliVpc = 8,
}

impl Guard {
    /// Every level.
    pub const ALL: &[Self] = &[Self::Off, Self::Peer, Self::Strict];

    /// The name on the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Peer => "peer",
            Self::Strict => "strict",
        }
    }
}

/// How strictly the guard looks at packets out of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Guard {
    /// Everything well-formed is let in, as with stock flannel.
    Off = 0,
    /// The outer source must be a leased peer's address.
    Peer = 1,
    /// The outer source must be the peer that leases the subnet of the inner source.
    Strict = 2,
}

/// Who adds and removes the outer headers of the tunnel's packets. Programs do so beside the stack, where no policy of
/// IPsec is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum Carrier {
    /// The programs.
    #[default]
    Programs = 0,
    /// The kernel's vxlan device, and with it the stack: it asks the policies of IPsec.
    Stack = 1,
    /// Nobody: packets of the tunnel are dropped.
    Nobody = 2,
}

/// What the programs know of the host they run on. It is written into them when they are loaded; after a change they
/// are loaded again and swapped through their links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Node {
    /// A [`Backend`] by its number; zero before the daemon has said so.
    pub backend: u32,
    /// Interface index of the flannel device (`flannel.<VNI>` or `flannel0`); zero where there is none.
    pub device: u32,
    /// Interface index of the underlay, by which packets leave where the routing table cannot be asked.
    pub underlay: u32,
    /// Interface index of the segmenter's entrance, where packets go for peers that do not take them whole; zero
    /// without the UDP backend.
    pub segmenter: u32,
    /// Outer source of packets sent, outer destination of packets accepted: the announced address if it is one of the
    /// host's own, or else the underlay's.
    pub local_ip: Ip4,
    /// First address of this host's subnet.
    pub subnet: Ip4,
    /// Netmask of every subnet of the network.
    pub netmask: Ip4,
    /// The VXLAN network identifier; zero with the UDP backend.
    pub vni: u32,
    /// UDP port of the tunnel, in host byte order.
    pub port: u32,
    /// A [`Guard`] by its number.
    pub guard: u32,
    /// A [`Bypass`] by its number.
    pub bypass: u32,
    /// Bits of a packet's TOS byte that its outer header gets, too, besides those of congestion: [`Node::DSCP`] or
    /// none.
    pub copied_tos: u32,
    /// A random number, by which flows are spread over places so that nobody can choose with whom theirs shares one.
    pub flow_seed: u64,
    /// Largest outer packet that the flannel device asks for, in bytes.
    pub outer_mtu: u32,
    /// Interface index of the VRF that the underlay belongs to; zero without one.
    pub vrf: u32,
    /// Ethernet address of the flannel device.
    pub device_mac: Mac,
    /// A [`Carrier`] by its number.
    pub carrier: u16,
    /// The identifier of the former format of VXLAN.
    pub former_vni: u32,
    /// UDP port of the former format of VXLAN, in which packets are taken, too, until every peer has gone over to the
    /// present one; zero where there is none.
    pub former_port: u32,
    /// Interface index of the kernel's device of the former format; zero where there is none.
    pub former_device: u32,
    /// Zero.
    pub reserved: u32,
}

impl Node {
    /// The bits of a TOS byte that are DSCP (RFC 2474).
    pub const DSCP: u32 = 0b1111_1100;

    /// The value in the programs before the daemon writes its own.
    pub const UNSET: Self = Self {
        backend: 0,
        device: 0,
        underlay: 0,
        segmenter: 0,
        local_ip: Ip4::UNSPECIFIED,
        subnet: Ip4::UNSPECIFIED,
        netmask: Ip4::UNSPECIFIED,
        vni: 0,
        port: 0,
        guard: Guard::Strict as u32,
        bypass: Bypass::Off as u32,
        copied_tos: 0,
        flow_seed: 0,
        outer_mtu: 0,
        vrf: 0,
        device_mac: Mac::ZERO,
        carrier: Carrier::Programs as u16,
        former_vni: 0,
        former_port: 0,
        former_device: 0,
        reserved: 0,
    };
}

#[cfg(feature = "aya")]
mod pod {
    use super::{Count, Node, Peer, PeerCount, Port};
    use crate::addr::Ip4;
    use crate::flow::{Connection, KnownFlow};
    use crate::trace::TraceFilter;

    macro_rules! pod {
        ($($type:ty),*) => {
            $(
                // SAFETY: the zerocopy derives on the type prove that every bit pattern is a value of it
                // and that it has no padding.
                unsafe impl aya::Pod for $type {}
            )*
        };
    }

    pod!(Ip4, Peer, Count, PeerCount, Port, Node, TraceFilter, KnownFlow, Connection);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use zerocopy::IntoBytes as _;

    use super::{ALL, COUNTER_SLOTS, Kind, Layout, NextHop, Peer, Port};
    use crate::{ABI_VERSION, Mac};

    #[test]
    fn the_words_of_a_port_are_as_in_memory() {
        let port = Port { bridge: 0x0102_0304, mac: Mac([5, 6, 7, 8, 9, 10]), reserved: 0 };
        let [first, second] = port.words().map(u64::to_le_bytes);
        assert_eq!(port.as_bytes(), [&first[..], &second[..4]].concat());
        assert_eq!(second[4..], [0; 4]);
    }

    #[test]
    fn what_a_peer_has_shown_holds_for_a_while() {
        let peer = |whole| Peer { whole, ..Peer::default() };
        assert!(!peer(0).accepts_gso(1), "it has shown nothing");
        assert!(peer(100).accepts_gso(100) && peer(100).accepts_gso(100 + Peer::WHOLE_FOR));
        assert!(!peer(100).accepts_gso(101 + Peer::WHOLE_FOR));
    }

    #[test]
    fn a_next_hop_holds_for_a_while_and_in_its_generation() {
        let next_hop = NextHop { until: 100, generation: 7, ..NextHop::UNKNOWN };
        assert!(next_hop.holds(99, 7));
        assert!(!next_hop.holds(100, 7) && !next_hop.holds(99, 8));
        assert!(!NextHop::UNKNOWN.holds(0, 0), "what is not known never holds");
    }

    /// The layout that belongs to the ABI version: a change of one requires a change of the other.
    #[test]
    fn layout_snapshot() {
        let layout = |name, kind, key_size, value_size, max_entries| Layout {
            name,
            kind,
            key_size,
            value_size,
            max_entries,
        };
        assert_eq!(ABI_VERSION, 6);
        assert_eq!(
            ALL,
            [
                layout("PEERS", Kind::Hash, 4, 56, 65_536),
                layout("SOURCES", Kind::Hash, 4, 4, 65_536),
                layout("COUNTERS", Kind::PerCpuArray, 4, 16, COUNTER_SLOTS),
                layout("PEER_COUNTERS", Kind::PerCpuHash, 4, 48, 65_536),
                layout("PORTS", Kind::Hash, 12, 4, 32_768),
                layout("NODE_INFO", Kind::Array, 4, 88, 1),
                layout("TRACE_FILTER", Kind::Array, 4, 32, 1),
                layout("EVENTS", Kind::RingBuf, 0, 0, 1 << 20),
                layout("FLOWS", Kind::Array, 4, 128, 65_536),
                layout("APPROVED", Kind::LruHash, 12, 8, 65_536),
                layout("CANDIDATES", Kind::RingBuf, 0, 0, 65_536),
                layout("GENERATION", Kind::Array, 4, 4, 1),
            ]
        );
        assert_eq!(COUNTER_SLOTS, 640);
    }
}
