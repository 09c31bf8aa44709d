//! Flows between pods, as the programs learn them to shorten the way of their packets.
//!
//! A packet takes the long way first, through bridge, routing and netfilter. A program sees it enter there and
//! another one sees it leave. What left as it had entered proves that the long way changes nothing of its flow, and
//! for a short while the packets behind it skip it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Ip4, Mac};

/// Flows that are known at a time. The kernel forgets those that were not seen for longest.
pub const MAX_FLOWS: u32 = 65_536;
/// Bytes of the ring in which programs announce connections.
pub const CANDIDATE_BYTES: u32 = 65_536;

/// For so long what was proved of a flow holds, in nanoseconds. Programs read a clock that lags up to 10 ms behind,
/// so that whatever changes in the kernel takes effect on running flows within 50 ms.
pub const VALID: u64 = 40_000_000;
/// A packet that has not left the stack after so long is not waited for, in nanoseconds.
pub const DRAINED: u64 = 12_000_000;
/// More packets than these are not in the stack at a time: they were lost there, or miscounted. After as many the
/// count begins anew.
pub const MANY: u32 = 64;
/// Packets of a TCP connection that have to leave the stack unchanged before it is announced.
pub const WORTHWHILE: u32 = 16;
/// A connection is announced no more often than this, in nanoseconds.
pub const ANNOUNCE: u64 = 100_000_000;

/// Which flows are shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FastPath {
    /// None.
    Off = 0,
    /// Those of which the long way changes nothing; TCP only after connection tracking was told.
    Flow = 1,
    /// As above, without regard to connection tracking.
    Direct = 2,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Direction {
    /// From a pod of this host to a peer.
    Out = 0,
    /// From a peer to a pod of this host.
    In = 1,
}

/// What the packets of a flow have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
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

/// A flow, as far as it is learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// How the last packet entered the stack.
    pub entered: Entered,
    /// How the last one left it unchanged.
    pub left: Left,
    /// Packets that have entered the stack and not left it yet.
    pub in_stack: u32,
    /// Zero.
    pub reserved: u32,
}

/// How a packet entered the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entered {
    /// When: nanoseconds of `CLOCK_MONOTONIC_COARSE`.
    pub at: u64,
    /// Interface index of where it did.
    pub interface: u32,
    /// The generation of the host's state at that time.
    pub generation: u32,
    /// Ethernet receiver; zero for packets from peers.
    pub destination: Mac,
    /// Ethernet sender; zero for packets from peers.
    pub source: Mac,
    /// Hops left.
    pub ttl: u32,
}

/// How a packet left the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Left {
    /// Until when packets can skip the stack; zero for a flow that must not.
    pub until: u64,
    /// When the connection was last announced to the daemon.
    pub announced: u64,
    /// Interface index of where it did.
    pub interface: u32,
    /// The generation of the host's state when it entered.
    pub generation: u32,
    /// Largest packet that interface takes, in bytes, without its Ethernet header.
    pub mtu: u32,
    /// The priority the stack gave the packet.
    pub priority: u32,
    /// Packets of the flow that have left the stack unchanged.
    pub packets: u32,
    /// Ethernet receiver; zero for packets to peers.
    pub destination: Mac,
    /// Ethernet sender; zero for packets to peers.
    pub source: Mac,
}

/// A TCP connection, whichever end sends.
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

impl FastPath {
    /// Every mode.
    pub const ALL: &[Self] = &[Self::Off, Self::Flow, Self::Direct];
}

impl Entered {
    /// Whether a packet that enters like `other` goes the same way from there.
    #[must_use]
    #[inline(always)]
    pub fn is_same_way(&self, other: &Self) -> bool {
        self.interface == other.interface
            && self.ttl == other.ttl
            && self.destination == other.destination
            && self.source == other.source
    }
}

impl Flow {
    /// One of which nothing is known.
    pub const UNKNOWN: Self = Self {
        entered: Entered {
            at: 0,
            interface: 0,
            generation: 0,
            destination: Mac::ZERO,
            source: Mac::ZERO,
            ttl: 0,
        },
        left: Left {
            until: 0,
            announced: 0,
            interface: 0,
            generation: 0,
            mtu: 0,
            priority: 0,
            packets: 0,
            destination: Mac::ZERO,
            source: Mac::ZERO,
        },
        in_stack: 0,
        reserved: 0,
    };

    /// Whether no packet of the flow is in the stack any more that another one could overtake.
    #[must_use]
    #[inline(always)]
    pub const fn is_drained(&self, now: u64) -> bool {
        self.in_stack == 0 || self.in_stack >= MANY || now.wrapping_sub(self.entered.at) > DRAINED
    }

    /// Whether packets can skip the stack now.
    #[must_use]
    #[inline(always)]
    pub const fn is_short(&self, now: u64, generation: u32) -> bool {
        now < self.left.until && self.left.generation == generation && self.is_drained(now)
    }
}

impl FlowKey {
    /// The connection this flow is one direction of.
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
