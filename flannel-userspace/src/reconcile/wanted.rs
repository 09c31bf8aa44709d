//! What must be in the kernel, by the peer it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::Ipv4Network;

use crate::backend::Object;

/// The wanted objects.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_peer: BTreeMap<Ipv4Network, BTreeSet<Object>>,
    /// Every object, and how many want it: two peers can share one.
    wanters: BTreeMap<Object, usize>,
}

impl Wanted {
    /// Only what is wanted whichever peers there are.
    pub(super) fn new(standing: Vec<Object>) -> Self {
        Self { by_peer: BTreeMap::new(), wanters: standing.into_iter().map(|object| (object, 1)).collect() }
    }

    /// Makes `objects` the ones of the peer of `subnet`, none for a peer that is gone. Returns those that
    /// were and those that are.
    pub(super) fn set(&mut self, subnet: Ipv4Network, objects: BTreeSet<Object>) -> BTreeSet<Object> {
        let mut touched = objects.clone();
        for object in &objects {
            *self.wanters.entry(object.clone()).or_default() += 1;
        }
        let before = if objects.is_empty() {
            self.by_peer.remove(&subnet)
        } else {
            self.by_peer.insert(subnet, objects)
        };
        for object in before.into_iter().flatten() {
            self.release(&object);
            touched.insert(object);
        }
        touched
    }

    fn release(&mut self, object: &Object) {
        if let Some(wanters) = self.wanters.get_mut(object) {
            *wanters -= 1;
            if *wanters == 0 {
                self.wanters.remove(object);
            }
        }
    }

    /// How many peers want one of `objects`.
    pub(super) fn peers_with(&self, objects: &BTreeSet<Object>) -> usize {
        self.by_peer.values().filter(|wanted| !wanted.is_disjoint(objects)).count()
    }

    /// Whether anything wants `object`.
    pub(super) fn contains(&self, object: &Object) -> bool {
        self.wanters.contains_key(object)
    }

    /// The wanted object that takes the same place in the kernel as `object`.
    pub(super) fn in_place_of(&self, object: &Object) -> Option<&Object> {
        let (first, last) = object.place();
        self.wanters.range(first..=last).next().map(|(object, _)| object)
    }

    /// Everything that is wanted.
    pub(super) fn all(&self) -> BTreeSet<Object> {
        self.wanters.keys().cloned().collect()
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
    fn what_took_the_place_of_a_wanted_object_is_recognised() {
        let mut wanted = Wanted::new(Vec::new());
        let fdb = |mac, vtep| Object::Fdb {
            device: 1,
            mac: Mac([mac; 6]),
            vtep: Ipv4Addr::new(192, 168, 77, vtep),
        };
        wanted.set(subnet(1), set([route(subnet(1), 7), fdb(2, 12)]));
        wanted.set(subnet(2), set([route(subnet(2), 7), fdb(4, 13)]));
        let other = Object::Route {
            subnet: subnet(2),
            via: Some(Ipv4Addr::BROADCAST),
            device: u32::MAX,
            onlink: true,
        };
        assert_eq!(wanted.in_place_of(&other), Some(&route(subnet(2), 7)));
        assert_eq!(wanted.in_place_of(&fdb(2, 99)), Some(&fdb(2, 12)));
        assert_eq!(wanted.in_place_of(&fdb(3, 12)), None);
        assert_eq!(wanted.in_place_of(&route(subnet(3), 7)), None);
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
