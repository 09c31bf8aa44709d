//! What must be in the kernel, by the peer it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use flannel_model::object::Object;
use ipnetwork::IpNetwork;

use crate::compact::compact;

/// Discards touched objects: after a listing everything is compared anyway.
pub(super) struct Discard;

impl Extend<Object> for Discard {
    fn extend<T: IntoIterator<Item = Object>>(&mut self, _: T) {}
}

/// The wanted objects.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_peer: BTreeMap<IpNetwork, Box<[Object]>>,
    /// Every object, and how many want it: two peers can share one.
    refcounts: BTreeMap<Object, u32>,
}

impl Wanted {
    /// Only what is wanted whichever peers there are.
    pub(super) fn new(standing: Vec<Object>) -> Self {
        Self { by_peer: BTreeMap::new(), refcounts: standing.into_iter().map(|object| (object, 1)).collect() }
    }

    /// Makes `objects`, none of them twice, the ones of the peer of `subnet`, none for a peer that is gone. Those that
    /// were and those that are go into `touched`.
    pub(super) fn set(&mut self, subnet: IpNetwork, objects: Vec<Object>, touched: &mut impl Extend<Object>) {
        touched.extend(objects.iter().cloned());
        // A peer is mostly wanted again as it was.
        if self.by_peer.get(&subnet).is_some_and(|before| **before == *objects) {
            return;
        }
        for object in &objects {
            *self.refcounts.entry(object.clone()).or_default() += 1;
        }
        let before = if objects.is_empty() {
            self.by_peer.remove(&subnet)
        } else {
            self.by_peer.insert(subnet, objects.into_boxed_slice())
        };
        for object in before.into_iter().flatten() {
            self.release(&object);
            touched.extend([object]);
        }
    }

    /// Takes no more memory than it needs.
    pub(super) fn compact(&mut self) {
        compact(&mut self.by_peer);
        compact(&mut self.refcounts);
    }

    fn release(&mut self, object: &Object) {
        if let Some(refcounts) = self.refcounts.get_mut(object) {
            *refcounts -= 1;
            if *refcounts == 0 {
                self.refcounts.remove(object);
            }
        }
    }

    /// How many peers want one of `objects`.
    pub(super) fn peers_with(&self, objects: &BTreeSet<Object>) -> usize {
        if objects.is_empty() {
            return 0;
        }
        self.by_peer.values().filter(|wanted| wanted.iter().any(|object| objects.contains(object))).count()
    }

    /// Whether the peer of `subnet` wants one of `objects`.
    pub(super) fn has_any(&self, subnet: IpNetwork, objects: &BTreeSet<Object>) -> bool {
        let wanted = || self.by_peer.get(&subnet);
        !objects.is_empty()
            && wanted().is_some_and(|wanted| wanted.iter().any(|object| objects.contains(object)))
    }

    /// Whether anything wants `object`.
    pub(super) fn contains(&self, object: &Object) -> bool {
        self.refcounts.contains_key(object)
    }

    /// The wanted object that takes the same place in the kernel as `object`.
    pub(super) fn in_place_of(&self, object: &Object) -> Option<&Object> {
        let (first, last) = object.place();
        self.refcounts.range(first..=last).next().map(|(object, _)| object)
    }

    /// What is wanted and not among `actual`, and the reverse; all of it in order.
    pub(super) fn differences(&self, actual: &[Object]) -> (Vec<Object>, Vec<Object>) {
        let (mut missing, mut stale) = (Vec::new(), Vec::new());
        let mut actual = actual.iter().peekable();
        for wanted in self.refcounts.keys() {
            while let Some(other) = actual.next_if(|actual| *actual < wanted) {
                stale.push(other.clone());
            }
            if actual.next_if_eq(&wanted).is_none() {
                missing.push(wanted.clone());
            }
        }
        stale.extend(actual.cloned());
        (missing, stale)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use flannel_common::Mac;
    use flannel_model::object::Object;
    use ipnetwork::IpNetwork;

    use super::Wanted;

    fn route(subnet: IpNetwork, device: u32) -> Object {
        Object::Route { subnet, via: None, device, onlink: false }
    }

    fn subnet(third: u8) -> IpNetwork {
        IpNetwork::new(Ipv4Addr::new(10, 5, third, 0).into(), 24).unwrap()
    }

    fn vtep(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 168, 77, last).into()
    }

    /// What was touched, in order.
    fn set<const N: usize>(wanted: &mut Wanted, subnet: IpNetwork, objects: [Object; N]) -> Vec<Object> {
        let mut touched = Vec::new();
        wanted.set(subnet, objects.into(), &mut touched);
        touched.sort();
        touched
    }

    #[test]
    fn a_changed_peer_touches_what_was_and_what_is() {
        let mut wanted = Wanted::new(Vec::new());
        set(&mut wanted, subnet(1), [route(subnet(1), 1)]);
        let touched = set(&mut wanted, subnet(1), [route(subnet(1), 2)]);
        assert_eq!(touched, [route(subnet(1), 1), route(subnet(1), 2)]);
        assert!(wanted.contains(&route(subnet(1), 2)) && !wanted.contains(&route(subnet(1), 1)));
    }

    #[test]
    fn a_peer_that_is_gone_wants_nothing() {
        let standing = route("10.5.0.0/16".parse().unwrap(), 1);
        let mut wanted = Wanted::new(vec![standing.clone()]);
        set(&mut wanted, subnet(1), [route(subnet(1), 1)]);
        assert_eq!(set(&mut wanted, subnet(1), []), [route(subnet(1), 1)]);
        assert_eq!(wanted.differences(&[]), (vec![standing], Vec::new()));
    }

    #[test]
    fn what_took_the_place_of_a_wanted_object_is_recognised() {
        let mut wanted = Wanted::new(Vec::new());
        let fdb = |mac, last| Object::Fdb {
            device: 1,
            mac: Mac([mac; 6]),
            vtep: vtep(last),
            vni: None,
            port: None,
        };
        set(&mut wanted, subnet(1), [route(subnet(1), 7), fdb(2, 12)]);
        set(&mut wanted, subnet(2), [route(subnet(2), 7), fdb(4, 13)]);
        let other = Object::Route {
            subnet: subnet(2),
            via: Some(Ipv4Addr::BROADCAST.into()),
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
        let shared = Object::Fdb { device: 1, mac: Mac([2; 6]), vtep: vtep(12), vni: None, port: None };
        let mut wanted = Wanted::new(Vec::new());
        set(&mut wanted, subnet(1), [shared.clone(), route(subnet(1), 1)]);
        set(&mut wanted, subnet(2), [shared.clone(), route(subnet(2), 1)]);
        assert!(set(&mut wanted, subnet(1), []).contains(&shared));
        assert!(wanted.contains(&shared));
        set(&mut wanted, subnet(2), []);
        assert!(!wanted.contains(&shared));
    }

    #[test]
    fn differences_are_told_in_both_directions() {
        let mut wanted = Wanted::new(Vec::new());
        let routes: Vec<Object> = (0..6).map(|third| route(subnet(third), 1)).collect();
        set(&mut wanted, subnet(1), [routes[1].clone(), routes[2].clone(), routes[4].clone()]);
        let actual = [0, 2, 3, 5].map(|third: usize| routes[third].clone());
        let (missing, stale) = wanted.differences(&actual);
        assert_eq!(missing, [routes[1].clone(), routes[4].clone()]);
        assert_eq!(stale, [routes[0].clone(), routes[3].clone(), routes[5].clone()]);
        assert_eq!(
            wanted.differences(&[routes[1].clone(), routes[2].clone(), routes[4].clone()]),
            Default::default()
        );
    }
}
