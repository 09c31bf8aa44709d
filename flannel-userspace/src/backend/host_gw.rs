//! Routes by way of the other hosts' addresses; nothing is encapsulated.

use super::{Object, PrepareError, Unreachable};
use crate::kernel::{Hop, Underlay};
use crate::peers::Peer;

/// The host-gw backend.
#[derive(Clone, Debug)]
pub struct HostGw {
    /// The interface all hosts are on.
    pub underlay: Underlay,
}

impl HostGw {
    pub(super) fn prepare(underlay: &Underlay) -> Result<Self, PrepareError> {
        if underlay.public_ip != underlay.address {
            return Err(PrepareError::TranslatedAddress {
                public_ip: underlay.public_ip,
                address: underlay.address,
                interface: underlay.name.clone(),
            });
        }
        Ok(Self { underlay: underlay.clone() })
    }

    pub(super) fn objects(&self, peer: &Peer, hop: Hop) -> Result<Vec<Object>, Unreachable> {
        match hop {
            Hop::Link => Ok(vec![route_by_link(peer, self.underlay.index)]),
            Hop::Routed => Err(Unreachable::NotOnLink {
                public_ip: peer.public_ip,
                subnet: peer.subnet,
                interface: self.underlay.name.clone(),
            }),
        }
    }
}

/// The route to a peer that is on the link of the underlay's interface.
pub(super) fn route_by_link(peer: &Peer, underlay: u32) -> Object {
    Object::Route { subnet: peer.subnet, via: Some(peer.public_ip), device: underlay, onlink: false }
}
