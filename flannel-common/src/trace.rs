//! What programs tell of single packets while somebody asks.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Ip4;

/// Bytes of a packet that are told.
pub const SNAP: usize = 256;
/// Bytes of the ring of events.
pub const EVENT_BYTES: u32 = 1 << 20;
/// Where the outer, or only, IPv4 header has its two addresses, behind an Ethernet header.
pub const ADDRESSES: usize = 14 + 12;
/// In the place of a reason: the packet has arrived, and what becomes of it is not decided.
pub const ARRIVED: u32 = u32::MAX;

/// Of which packets programs tell. All zero: of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TraceFilter {
    /// Until when somebody asks: nanoseconds of `CLOCK_MONOTONIC`. Whoever asks moves it on, so that programs fall
    /// silent by themselves when nobody does any more.
    pub until: u64,
    /// Reasons asked for, a bit for each by its number.
    pub reasons: u64,
    /// Hooks asked for, a bit for each by its number.
    pub hooks: u32,
    /// One of so many packets is told; zero and one for all.
    pub every: u32,
    /// Sender or receiver in the first IPv4 header; unspecified for any.
    pub address: Ip4,
    /// Not zero: packets are also told as they arrive, with the headers a program is about to remove.
    pub arrivals: u32,
}

/// What is told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// A [`Hook`](crate::Hook) by its number.
    pub hook: u32,
    /// A [`Reason`](crate::Reason) by its number, or [`ARRIVED`].
    pub reason: u32,
    /// Interface index of the hook.
    pub interface: u32,
    /// Length of the packet, with its Ethernet header.
    pub len: u32,
    /// How many of `bytes` are the packet's.
    pub captured: u32,
    /// How many segments the packet stands for; zero or one for an ordinary packet.
    pub segments: u32,
    /// The packet's beginning, as it is when its fate is decided; behind `captured` anything.
    pub bytes: [u8; SNAP],
}
