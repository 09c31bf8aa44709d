//! What programs report of single packets while a trace filter is set.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Ip4;

/// Bytes of a packet that are reported.
pub const SNAP: usize = 256;
/// Bytes of the ring of events.
pub const EVENT_BYTES: u32 = 1 << 20;
/// Offset of the two addresses in the outer, or only, IPv4 header, behind an Ethernet header.
pub const ADDRESSES: usize = 14 + 12;
/// In the place of a reason: the packet has arrived, and its verdict is still open.
pub const ARRIVED: u32 = u32::MAX;

/// Which packets programs report. All zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TraceFilter {
    /// Until when the filter is valid: nanoseconds of `CLOCK_MONOTONIC`. The trace session extends it, so programs stop
    /// by themselves when no session is left.
    pub until: u64,
    /// Reasons to report, a bit for each by its number.
    pub reasons: u64,
    /// Hooks to report, a bit for each by its number.
    pub hooks: u32,
    /// One of so many packets is reported; zero and one for all.
    pub every: u32,
    /// Sender or receiver in the first IPv4 header; unspecified for any.
    pub address: Ip4,
    /// Not zero: packets are also reported when they arrive, with the headers that a program is about to remove.
    pub arrivals: u32,
}

/// The report of a packet.
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
    /// The packet's beginning at the time of its verdict; behind `captured` anything.
    pub bytes: [u8; SNAP],
}
