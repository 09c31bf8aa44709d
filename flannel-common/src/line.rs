//! Lines that programs write for the daemon's log.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Ip4;

/// A packet that did not go where it should, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Line {
    /// A [`Hook`](crate::Hook) by its number.
    pub hook: u32,
    /// A [`Reason`](crate::Reason) by its number.
    pub reason: u32,
    /// Interface index of the hook.
    pub interface: u32,
    /// Length of the packet, with its Ethernet header.
    pub bytes: u32,
    /// Sender of the tunnel packet; unspecified for a packet that is none.
    pub outer_source: Ip4,
    /// Receiver of the tunnel packet; unspecified for a packet that is none.
    pub outer_destination: Ip4,
    /// Sender of the packet within it, or of the packet itself; unspecified where that has no IPv4 header.
    pub source: Ip4,
    /// Receiver of the same.
    pub destination: Ip4,
}
