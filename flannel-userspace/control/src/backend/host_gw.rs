//! Routes by way of the other hosts' addresses; nothing is encapsulated.

use flannel_common::Mac;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Underlay};

use super::{PrepareError, Unreachable};
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
            Hop::Link => Ok(direct(peer, self.underlay.index)),
            Hop::Routed => Err(Unreachable::NotOnLink {
                public_ip: peer.public_ip,
                subnet: peer.subnet,
                interface: self.underlay.name.clone(),
            }),
        }
    }
}

/// What leads to a peer that is on the link of the underlay's interface: a route. The entry in the programs'
/// table forwards nothing; it makes the peer known to the guard and to readers of the table.
pub(super) fn direct(peer: &Peer, underlay: u32) -> Vec<Object> {
    let Peer { subnet, public_ip, vtep_mac } = *peer;
    vec![
        Object::Peer { subnet, public_ip, mac: vtep_mac.unwrap_or(Mac::ZERO), direct: true },
        Object::Route { subnet, via: Some(public_ip), device: underlay, onlink: false },
    ]
}
