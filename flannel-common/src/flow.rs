//! Flows between pods, which the programs learn so that their packets can bypass the stack.
//!
//! The first packet takes the long path, through bridge, routing and netfilter. One program sees it enter the stack,
//! and another sees it leave. If it leaves as it entered, the stack does not change the packets of its flow. For a
//! short time the packets behind it bypass the stack.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Ip4, Mac};

/// Flows that are known at a time.
pub const MAX_FLOWS: u32 = 65_536;
/// Adjacent places for a flow. If other flows have all of them, it takes the long path.
pub const PLACES: u32 = 4;
/// Bytes of the ring in which programs announce connections.
pub const CANDIDATE_BYTES: u32 = 65_536;

/// How long a confirmation of a flow is valid, in nanoseconds. Programs read a clock that lags up to 10 ms behind, so a
/// change in the kernel takes effect on running flows within 50 ms.
pub const VALID: u64 = 40_000_000;
/// If no packet of a flow has entered the stack for so long, its place is free, in nanoseconds: it cannot bypass the
/// stack any more, and has no packet there.
pub const OVER: u64 = 2 * VALID;
/// How long a packet in the stack is waited for, in nanoseconds.
pub const DRAINED: u64 = 12_000_000;
/// The stack never holds so many packets of a flow: some were lost there, or miscounted. After so many packets the
/// count starts again.
pub const MANY: u16 = 64;
/// Packets of a TCP connection that have to leave the stack unchanged before it is announced.
pub const WORTHWHILE: u32 = 16;
/// Shortest time between two announcements of a connection, in nanoseconds.
pub const ANNOUNCE: u64 = 100_000_000;

/// Which flows bypass the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bypass {
    /// None.
    Off = 0,
    /// Those that the stack does not change; TCP only after connection tracking has been informed.
    Flow = 1,
    /// As above, without regard to connection tracking.
    Direct = 2,
}

/// The direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Direction {
    /// From a pod of this host to a peer.
    Out = 0,
    /// From a peer to a pod of this host.
    In = 1,
}

/// How the packets of a flow continue from where they leave the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Way {
    /// Without a tunnel, by the Ethernet addresses of [`BypassHop`].
    Plain = 0,
    /// Through the tunnel.
    Tunnel = 1,
    /// By the segmenter into the tunnel.
    Segmenter = 2,
    /// Through the tunnel, in the former format of VXLAN.
    FormerTunnel = 3,
}

/// What the packets of a flow have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Sender.
    pub source: Ip4,
    /// Receiver.
    pub destination: Ip4,
    /// Sender's port, or the identifier of an ICMP echo; network byte order.
    pub source_port: u16,
    /// Receiver's port, or the type of an ICMP echo; network byte order.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// DSCP, in the high six bits.
    pub dscp: u8,
    /// A [`Direction`] by its number.
    pub direction: u16,
}

/// A flow with what is known of it. A place where there is none holds zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KnownFlow {
    /// Its key.
    pub key: FlowKey,
    /// What is known.
    pub flow: Flow,
}

/// A flow, as far as it is learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// How the last packet left the stack unchanged.
    pub left: BypassEntry,
    /// How the last packet entered the stack.
    pub entered: IngressState,
    /// Packets that have entered the stack and not left it yet, and those that were lost in it.
    pub in_stack: u16,
    /// Those of them that have entered behind the sample: when it leaves the stack, no others are there.
    pub behind: u16,
    /// When packets last entered from two places, in [`ticks`]; zero for never. Somebody sends in another's name, or the
    /// sender has moved.
    pub contested: u32,
}

/// The bypass entry: how a packet left the stack, and so how those behind it bypass it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BypassEntry {
    /// Until when packets can bypass the stack; zero for a flow that must not.
    pub until: u64,
    /// The generation of the host's state when the packet entered.
    pub generation: u32,
    /// Interface index of where it left.
    pub interface: u32,
    /// Largest packet that interface takes, in bytes, without its Ethernet header.
    pub mtu: u32,
    /// The priority the stack gave the packet.
    pub priority: u32,
    /// Where it went from there.
    pub onward: BypassHop,
    /// Packets of the flow that have left the stack unchanged.
    pub packets: u32,
    /// When the connection was last announced to the daemon.
    pub announced: u64,
}

/// The next hop of a bypass: how a packet continues from where it left the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct BypassHop {
    /// Ethernet receiver: the pod, or the next hop over the underlay; zero where the kernel has to route the packet.
    pub destination: Mac,
    /// Ethernet sender.
    pub source: Mac,
    /// The peer's public address; unspecified without a tunnel.
    pub public_ip: Ip4,
    /// The peer's VTEP; zero without one.
    pub vtep_mac: Mac,
    /// A [`Way`] by its number.
    pub way: u16,
    /// Interface index of where it leaves the host, or reaches the pod.
    pub device: u32,
}

/// The ingress state: how a packet entered the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IngressState {
    /// When it entered: nanoseconds of `CLOCK_MONOTONIC_COARSE`.
    pub at: u64,
    /// Ethernet receiver; zero for packets from peers.
    pub destination: Mac,
    /// Ethernet sender; zero for packets from peers.
    pub source: Mac,
    /// Interface index of where it entered.
    pub interface: u32,
    /// Hops left.
    pub ttl: u8,
    /// Not zero where its datagram showed that the peer takes packets whole, as with
    /// [`Peer::whole`](crate::maps::Peer::whole).
    pub whole: u8,
    /// When the sample entered, in [`ticks`], as far as they fit.
    pub sampled: u16,
    /// The outer source, after the guard; this host's address after XDP, which removes it; unspecified for packets from
    /// pods and for those without a tunnel.
    pub outer_source: Ip4,
    /// The generation of the host's state at that time.
    pub generation: u32,
    /// The fingerprint of the sample: the packet by which the way through the stack is proved.
    pub fingerprint: u32,
}

/// A TCP connection, the same for both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Connection {
    /// The end with the lower address, by its number in memory.
    pub low: Ip4,
    /// The other end.
    pub high: Ip4,
    /// Port of the lower end, network byte order.
    pub low_port: u16,
    /// Port of the other end, network byte order.
    pub high_port: u16,
}

impl Bypass {
    /// Every mode.
    pub const ALL: &[Self] = &[Self::Off, Self::Flow, Self::Direct];
}

impl IngressState {
    /// Whether a packet that enters like `other` takes the same path from there.
    #[must_use]
    #[inline(always)]
    pub fn has_same_path(&self, other: &Self) -> bool {
        self.is_of_same_sender(other) && self.ttl == other.ttl && self.whole == other.whole
    }

    /// Whether a packet that enters like `other` comes from the same place.
    #[must_use]
    #[inline(always)]
    pub fn is_of_same_sender(&self, other: &Self) -> bool {
        self.interface == other.interface
            && self.outer_source == other.outer_source
            && self.destination == other.destination
            && self.source == other.source
    }
}

impl Flow {
    /// Whether the stack holds no packet of the flow any more that another one could overtake.
    #[must_use]
    #[inline(always)]
    pub const fn is_drained(&self, now: u64) -> bool {
        self.in_stack == 0 || self.in_stack >= MANY || now.wrapping_sub(self.entered.at) > DRAINED
    }

    /// Whether packets have entered in two ways a short while ago. Until that is over, neither way is proved.
    #[must_use]
    #[inline(always)]
    pub const fn is_contested(&self, now: u64) -> bool {
        self.contested != 0 && ticks(now).wrapping_sub(self.contested) <= ticks(OVER)
    }

    /// Whether there is a sample that can still prove the way through the stack.
    #[must_use]
    #[inline(always)]
    pub const fn has_sample(&self, now: u64) -> bool {
        let age = (ticks(now) as u16).wrapping_sub(self.entered.sampled);
        self.entered.fingerprint != 0 && (age as u32) < ticks(VALID)
    }

    /// Whether packets can bypass the stack now.
    #[must_use]
    #[inline(always)]
    pub const fn can_bypass(&self, now: u64, generation: u32) -> bool {
        now < self.left.until
            && self.left.generation == generation
            && self.is_drained(now)
            && !self.is_contested(now)
    }
}

/// A time in units of 2²⁰ nanoseconds, about a millisecond.
#[must_use]
#[inline(always)]
pub const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> 20) as u32
}

impl FlowKey {
    /// The key as two words, in memory order.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        let Self { source, destination, source_port, destination_port, protocol, dscp, direction } = *self;
        let ends = word(source) | word(destination) << 32;
        let rest = source_port as u64
            | (destination_port as u64) << 16
            | (protocol as u64) << 32
            | (dscp as u64) << 40
            | (direction as u64) << 48;
        [ends, rest]
    }

    /// The first of its [`PLACES`], below [`MAX_FLOWS`]; a different one for each `seed`.
    #[must_use]
    #[inline(always)]
    pub const fn place(&self, seed: u64) -> u32 {
        let [ends, rest] = self.words();
        let spread = ends.wrapping_mul(SPREAD);
        // Multiplied by a random odd number, two keys have the upper bits in common as seldom as by chance
        // (Dietzfelbinger and others, A Reliable Randomized Algorithm for the Closest-Pair Problem).
        let mixed = (spread ^ spread >> 32 ^ rest).wrapping_mul(seed | 1);
        (mixed >> (u64::BITS - (MAX_FLOWS / PLACES).ilog2())) as u32 * PLACES
    }

    /// The connection of which this flow is one direction.
    #[must_use]
    #[inline(always)]
    pub const fn connection(&self) -> Connection {
        let Self { source, destination, source_port, destination_port, .. } = *self;
        if source.is_below(destination) {
            Connection { low: source, high: destination, low_port: source_port, high_port: destination_port }
        } else {
            Connection { low: destination, high: source, low_port: destination_port, high_port: source_port }
        }
    }
}

impl Connection {
    /// The connection as two words, in memory order; the upper half of the second is zero.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        let Self { low, high, low_port, high_port } = *self;
        [word(low) | word(high) << 32, low_port as u64 | (high_port as u64) << 16]
    }
}

/// Multiplies every bit of a word into the upper ones: 2⁶⁴ by the golden ratio, made odd (Knuth, The Art of Computer
/// Programming 6.4).
pub const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
const fn word(address: Ip4) -> u64 {
    u32::from_le_bytes(address.octets()) as u64
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use zerocopy::IntoBytes as _;

    use super::{FlowKey, MAX_FLOWS, PLACES};
    use crate::Ip4;

    const SEED: u64 = 0x5eed_0123_4567_f10a;

    fn keys() -> impl Iterator<Item = FlowKey> {
        let pods = (0..64).flat_map(|one| (0..64).map(move |other| (one, other)));
        pods.flat_map(|(one, other)| {
            (0..4).map(move |port: u16| FlowKey {
                source: Ip4::from_octets([10, 5, 1, one]),
                destination: Ip4::from_octets([10, 5, 2, other]),
                source_port: (40_000 + port).to_be(),
                destination_port: 443u16.to_be(),
                protocol: 6,
                dscp: 0,
                direction: 1,
            })
        })
    }

    #[test]
    fn words_are_as_in_memory() {
        for key in keys() {
            let [ends, rest] = key.words();
            assert_eq!(key.as_bytes(), [ends.to_le_bytes(), rest.to_le_bytes()].concat());
            let connection = key.connection();
            let [ends, ports] = connection.words().map(u64::to_le_bytes);
            assert_eq!(connection.as_bytes(), [&ends[..], &ports[..4]].concat());
            assert_eq!(ports[4..], [0; 4]);
        }
    }

    /// The flows here need a quarter of the places. With a random spread, one flow in 200 finds all its places taken.
    #[test]
    fn flows_that_differ_little_are_spread() {
        let mut taken = HashMap::new();
        for place in keys().map(|key| key.place(SEED)) {
            assert!(place % PLACES == 0 && place + PLACES <= MAX_FLOWS);
            *taken.entry(place).or_insert(0) += 1;
        }
        let homeless: u32 = taken.values().map(|flows: &u32| flows.saturating_sub(PLACES)).sum();
        assert!(homeless < 200, "{homeless} of {}", keys().count());
    }

    #[test]
    fn who_shares_places_with_whom_depends_on_the_seed() {
        let first = keys().next().unwrap();
        let neighbours = |seed| keys().filter(move |key| key.place(seed) == first.place(seed));
        let seeds = (1..=64u64).map(|number| number.wrapping_mul(SEED));
        let with_one = seeds.flat_map(neighbours).filter(|key| *key != first);
        let mut times = HashMap::new();
        with_one.for_each(|key| *times.entry(key).or_insert(0) += 1);
        assert!(times.len() > 32 && times.values().all(|times| *times < 4), "{times:?}");
    }
}
