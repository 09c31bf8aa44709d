//! Routes via the other hosts' addresses; nothing is encapsulated.

use flannel_model::backend::Kind;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};

use super::{Backend, Unreachable, Unsuitable, direct};
use crate::peers::Peer;

/// The host-gw backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostGw;

impl Backend for HostGw {
    fn kind(&self) -> Kind {
        Kind::HostGw
    }

    fn check(&self, underlay: &Underlay) -> Result<(), Unsuitable> {
        let mut pairs = underlay.public.iter().zip(underlay.addresses.iter());
        match pairs.find(|(public_ip, address)| public_ip != address) {
            Some((public_ip, address)) => {
                Err(Unsuitable::TranslatedAddress { public_ip, address, interface: underlay.name.clone() })
            }
            None => Ok(()),
        }
    }

    fn depends_on_hop(&self) -> bool {
        true
    }

    fn objects(&self, peer: &Peer, hop: Hop, links: &Links) -> Result<Vec<Object>, Unreachable> {
        match hop {
            Hop::Link => Ok(direct(peer, None, &links.underlay)),
            Hop::Routed => Err(Unreachable::NotOnLink {
                public_ip: peer.public_ip,
                subnet: peer.subnet,
                interface: links.underlay.name.clone(),
            }),
        }
    }
}
