//! What must be in the kernel, by the peer it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::Ipv4Network;

use crate::backend::Object;

/// The wanted objects.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    standing: BTreeSet<Object>,
    by_peer: BTreeMap<Ipv4Network, BTreeSet<Object>>,
}

impl Wanted {
    /// Only what is wanted whichever peers there are.
    pub(super) fn new(standing: Vec<Object>) -> Self {
        Self { standing: standing.into_iter().collect(), by_peer: BTreeMap::new() }
    }

    /// Makes `objects` the ones of the peer of `subnet`, none for a peer that is gone. Returns those that
    /// were and those that are.
    pub(super) fn set(&mut self, subnet: Ipv4Network, objects: BTreeSet<Object>) -> BTreeSet<Object> {
        let mut touched = objects.clone();
        let before = if objects.is_empty() {
            self.by_peer.remove(&subnet)
        } else {
            self.by_peer.insert(subnet, objects)
        };
        touched.extend(before.into_iter().flatten());
        touched
    }

    /// Whether any peer wants `object`: two peers can share one.
    pub(super) fn contains(&self, object: &Object) -> bool {
        self.standing.contains(object)
            || match object {
                Object::Peer { subnet, .. } | Object::Route { subnet, .. } => {
                    self.by_peer.get(subnet).is_some_and(|objects| objects.contains(object))
                }
                Object::Neighbour { .. } | Object::Fdb { .. } => {
                    self.by_peer.values().any(|objects| objects.contains(object))
                }
            }
    }

    /// Everything that is wanted.
    pub(super) fn all(&self) -> BTreeSet<Object> {
        self.standing.iter().chain(self.by_peer.values().flatten()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use flannel_common::Mac;
    use ipnetwork::Ipv4Network;

    use super::Wanted;
    use crate::backend::Object;

    fn route(subnet: Ipv4Network, device: u32) -> Object {
        Object::Route { subnet, via: None, device, onlink: false }
    }

    fn subnet(third: u8) -> Ipv4Network {
        Ipv4Network::new(Ipv4Addr::new(10, 5, third, 0), 24).unwrap()
    }

    fn set<const N: usize>(objects: [Object; N]) -> BTreeSet<Object> {
        objects.into_iter().collect()
    }

    #[test]
    fn a_changed_peer_touches_what_was_and_what_is() {
        let mut wanted = Wanted::new(Vec::new());
        wanted.set(subnet(1), set([route(subnet(1), 1)]));
        let touched = wanted.set(subnet(1), set([route(subnet(1), 2)]));
        assert_eq!(touched, set([route(subnet(1), 1), route(subnet(1), 2)]));
        assert!(wanted.contains(&route(subnet(1), 2)) && !wanted.contains(&route(subnet(1), 1)));
    }

    #[test]
    fn a_peer_that_is_gone_wants_nothing() {
        let standing = route("10.5.0.0/16".parse().unwrap(), 1);
        let mut wanted = Wanted::new(vec![standing.clone()]);
        wanted.set(subnet(1), set([route(subnet(1), 1)]));
        assert_eq!(wanted.set(subnet(1), BTreeSet::new()), set([route(subnet(1), 1)]));
        assert_eq!(wanted.all(), set([standing]));
    }

    #[test]
    fn an_object_two_peers_share_stays_while_one_wants_it() {
        let shared = Object::Fdb { device: 1, mac: Mac([2; 6]), vtep: Ipv4Addr::new(192, 168, 77, 12) };
        let mut wanted = Wanted::new(Vec::new());
        wanted.set(subnet(1), set([shared.clone(), route(subnet(1), 1)]));
        wanted.set(subnet(2), set([shared.clone(), route(subnet(2), 1)]));
        assert!(wanted.set(subnet(1), BTreeSet::new()).contains(&shared));
        assert!(wanted.contains(&shared));
        wanted.set(subnet(2), BTreeSet::new());
        assert!(!wanted.contains(&shared));
    }
}
