//! The table of peers: the only place that decides whether a lease is acceptable.

use std::net::Ipv4Addr;

use flannel_common::Mac;
use ipnetwork::Ipv4Network;

/// A host whose lease was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subnet it leases.
    pub subnet: Ipv4Network,
    /// The address at which it is reached.
    pub public_ip: Ipv4Addr,
    /// Ethernet address of its VTEP; only with the VXLAN backend.
    pub vtep_mac: Option<Mac>,
}

/// What changed in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Peers that are new.
    pub added: Vec<Peer>,
    /// Peers that are told otherwise now: before and after.
    pub changed: Vec<(Peer, Peer)>,
    /// Peers that are gone.
    pub removed: Vec<Peer>,
}
