//! What the packet logic needs of the table of peers.

use flannel_common::Ip4;
use flannel_common::maps::Peer;

/// The peers, as the daemon programmed them.
pub trait Peers {
    /// The peer that leases the subnet with this first address.
    fn peer(&self, subnet: Ip4) -> Option<Peer>;

    /// Whether `address` is the public address of any peer.
    fn is_source(&self, address: Ip4) -> bool;

    /// Seconds of `CLOCK_MONOTONIC`, never zero.
    fn now(&self) -> u32;

    /// Writes [`Peer::whole`] of the peer of `subnet`, if `public_ip` is its address.
    fn note_whole(&self, subnet: Ip4, public_ip: Ip4, whole: u32);
}
