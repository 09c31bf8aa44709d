//! What is known of all nodes, and which leases follow: of each node one, of each subnet one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flannel_model::family::{Addresses, Family, PerFamily, Subnets};
use flannel_model::lease::{Attributes, Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey};

use crate::annotations::{Junk, Prefix};
use crate::node::{CidrError, Metadata, Spec};

/// A node as far as leases follow from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: Box<str>,
    /// Another one under the same name is another node, which may have been assigned other subnets.
    uid: Box<str>,
    /// Seconds since 1970.
    created: i64,
    /// What was assigned to it, which never changes once it is there; nothing where that is not known yet.
    assigned: Option<Result<Subnets, CidrError>>,
    /// What its host says of itself; nothing where no flannel serves it.
    said: Option<Said>,
}

#[derive(Clone, Debug, PartialEq)]
struct Said {
    attributes: Attributes,
    junk: PerFamily<Junk>,
}

/// What a node claims.
#[derive(Clone, Debug, PartialEq)]
enum Claim {
    Nothing,
    Lease(SubnetKey),
    /// Its lease would be none.
    Unusable(String),
}

/// Several nodes announce one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) address: IpAddr,
    /// The nodes; just one where the address is shared no more.
    pub(crate) nodes: Vec<String>,
}

/// What follows from a change.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) events: Vec<Event>,
    pub(crate) shared: Vec<Shared>,
}

#[derive(Debug)]
pub(crate) struct Directory {
    /// The families that are served.
    families: Vec<Family>,
    /// This host's node, whose lease is no peer's.
    own: Box<str>,
    nodes: BTreeMap<Box<str>, Entry>,
    /// The nodes that claim a lease, the oldest first: it has it.
    claimants: BTreeMap<SubnetKey, BTreeSet<(i64, Box<str>)>>,
    /// What was told of nodes whose lease is none.
    unusable: BTreeMap<Box<str>, String>,
    by_address: BTreeMap<IpAddr, BTreeSet<Box<str>>>,
    /// Addresses of which it was told that they are shared.
    shared: BTreeSet<IpAddr>,
}

impl Entry {
    /// The node by its metadata, and by its specification if that is known.
    pub(crate) fn new(prefix: &Prefix, metadata: Metadata, spec: Option<&Spec>) -> Self {
        let said = prefix.is_managed(&metadata.annotations).then(|| {
            let (attributes, junk) = prefix.read(&metadata.annotations);
            Said { attributes, junk }
        });
        Self {
            created: metadata.created(),
            assigned: spec.map(Spec::subnets).filter(|assigned| *assigned != Ok(Subnets::NONE)),
            said,
            name: metadata.name.into(),
            uid: metadata.uid.into(),
        }
    }

    /// Whether a lease follows as soon as it is known what was assigned to it.
    pub(crate) const fn lacks_assignment(&self) -> bool {
        self.said.is_some() && self.assigned.is_none()
    }

    fn public(&self) -> Addresses {
        self.said.as_ref().map_or(Addresses::NONE, |said| said.attributes.public)
    }

    fn claim(&self, families: &[Family]) -> Claim {
        let (Some(said), Some(assigned)) = (&self.said, &self.assigned) else { return Claim::Nothing };
        let all = match assigned {
            Ok(subnets) => subnets,
            Err(error) => return Claim::Unusable(error.to_string()),
        };
        let served = families.iter().filter_map(|family| all.get(*family));
        let subnets = served.fold(Subnets::NONE, Subnets::with);
        if subnets.is_empty() {
            return Claim::Unusable(format!("its podCIDR {all} is of a family that is not served"));
        }
        let junk = |network: ipnetwork::IpNetwork| said.junk.get(network.into());
        match subnets.iter().map(junk).collect::<Option<Vec<_>>>() {
            // What is wrong with one family leaves the other one as it is.
            None => Claim::Lease(SubnetKey(subnets)),
            Some(junk) => {
                Claim::Unusable(junk.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl Directory {
    /// Knows no node. The lease of the node `own` is this host's.
    pub(crate) fn new(own: &str, families: Vec<Family>) -> Self {
        Self {
            families,
            own: own.into(),
            nodes: BTreeMap::new(),
            claimants: BTreeMap::new(),
            unusable: BTreeMap::new(),
            by_address: BTreeMap::new(),
            shared: BTreeSet::new(),
        }
    }

    /// The same with the leases of these families.
    pub(crate) fn serving(self, families: Vec<Family>) -> Self {
        Self { families, ..self }
    }

    /// Adds what is known of the node's assignment already.
    pub(crate) fn complete(&self, mut entry: Entry) -> Entry {
        if entry.assigned.is_none() {
            let known = self.nodes.get(&entry.name).filter(|known| known.uid == entry.uid);
            entry.assigned = known.and_then(|known| known.assigned.clone());
        }
        entry
    }

    /// Knows exactly these nodes, each as of the revision beside it.
    pub(crate) fn replace(
        &mut self,
        entries: Vec<(Entry, Revision)>,
        revision: Revision,
    ) -> (Snapshot, Vec<Shared>) {
        let told = std::mem::take(&mut self.shared);
        *self = Self { shared: told, ..Self::new(&self.own, std::mem::take(&mut self.families)) };
        let mut revisions = BTreeMap::new();
        for (entry, revision) in entries {
            revisions.insert(entry.name.clone(), revision);
            self.insert(entry);
        }
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        let names: Vec<Box<str>> = self.nodes.keys().cloned().collect();
        for name in names {
            let of_node = revisions.get(&name).copied().unwrap_or(revision);
            if let Some(reason) = self.reason(&name) {
                self.unusable.insert(name.clone(), reason.clone());
                snapshot.rejected.push(rejected(&name, reason, of_node));
            } else if let Some(lease) = self.lease(&name, of_node) {
                snapshot.leases.push(lease);
            }
        }
        let addresses: Vec<IpAddr> = self
            .by_address
            .keys()
            .chain(&self.shared)
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let shared = self.tell_shared(&addresses);
        (snapshot, shared)
    }

    /// Takes in that a node is so since `revision`.
    pub(crate) fn put(&mut self, entry: Entry, revision: Revision) -> Changes {
        if self.nodes.get(&entry.name) == Some(&entry) {
            return Changes::default();
        }
        self.change(entry.name.clone(), Some(entry), revision)
    }

    /// Takes in that a node is gone since `revision`.
    pub(crate) fn remove(&mut self, name: &str, revision: Revision) -> Changes {
        self.change(name.into(), None, revision)
    }

    /// Who has which lease, without this host.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (&str, Subnets)> {
        self.claimants.iter().filter_map(|(key, names)| Some((&*names.first()?.1, key.0)))
    }

    fn change(&mut self, name: Box<str>, entry: Option<Entry>, revision: Revision) -> Changes {
        let before = self.nodes.get(&name).cloned();
        let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for entry in before.iter().chain(&entry) {
            addresses.extend(entry.public().iter());
            if let Claim::Lease(key) = entry.claim(&self.families) {
                keys.insert(key);
            }
        }
        let held: Vec<(SubnetKey, Option<Lease>)> =
            keys.iter().map(|key| (*key, self.holding(key, revision))).collect();
        self.take_out(&name);
        if let Some(entry) = entry {
            self.insert(entry);
        }
        let mut events = Vec::new();
        for (key, before) in &held {
            match (before, self.holding(key, revision)) {
                (before, Some(lease)) if before.as_ref() != Some(&lease) => events.push(Event::Put(lease)),
                (Some(_), None) => {
                    events.push(Event::Delete { key: Key::Subnet(*key), mod_revision: revision });
                }
                _ => {}
            }
        }
        let mut touched: BTreeSet<Box<str>> = keys
            .iter()
            .filter_map(|key| self.claimants.get(key))
            .flatten()
            .map(|(_, name)| name.clone())
            .collect();
        touched.insert(name);
        for name in touched {
            events.extend(self.tell_unusable(name, revision));
        }
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        Changes { events, shared: self.tell_shared(&addresses) }
    }

    fn insert(&mut self, entry: Entry) {
        for address in entry.public().iter() {
            self.by_address.entry(address).or_default().insert(entry.name.clone());
        }
        if entry.name != self.own
            && let Claim::Lease(key) = entry.claim(&self.families)
        {
            self.claimants.entry(key).or_default().insert((entry.created, entry.name.clone()));
        }
        self.nodes.insert(entry.name.clone(), entry);
    }

    fn take_out(&mut self, name: &str) {
        let Some(entry) = self.nodes.remove(name) else { return };
        for address in entry.public().iter() {
            take_from(&mut self.by_address, &address, &entry.name);
        }
        if let Claim::Lease(key) = entry.claim(&self.families) {
            take_from(&mut self.claimants, &key, &(entry.created, entry.name));
        }
    }

    /// The lease of that key, written with `revision`.
    fn holding(&self, key: &SubnetKey, revision: Revision) -> Option<Lease> {
        let (_, name) = self.claimants.get(key)?.first()?;
        self.lease(name, revision)
    }

    /// The lease that a node has, written with `revision`.
    fn lease(&self, name: &str, revision: Revision) -> Option<Lease> {
        let entry = self.nodes.get(name).filter(|entry| entry.name != self.own)?;
        let (Claim::Lease(key), Some(said)) = (entry.claim(&self.families), &entry.said) else { return None };
        let attributes = said.attributes.clone();
        let created = Revision::new(entry.created);
        Some(Lease { subnets: key.0, attributes, mod_revision: revision, created, term: None })
    }

    /// Why a node has no lease though its host says that it serves one.
    fn reason(&self, name: &str) -> Option<String> {
        let entry = self.nodes.get(name).filter(|entry| entry.name != self.own)?;
        match entry.claim(&self.families) {
            Claim::Nothing => None,
            Claim::Unusable(reason) => Some(reason),
            Claim::Lease(key) => {
                let (_, holder) = self.claimants.get(&key)?.first()?;
                (**holder != *name)
                    .then(|| format!("its podCIDR {} is that of the node {holder}, too", key.0))
            }
        }
    }

    fn tell_unusable(&mut self, name: Box<str>, revision: Revision) -> Option<Event> {
        let reason = self.reason(&name);
        if self.unusable.get(&name) == reason.as_ref() {
            return None;
        }
        match reason {
            Some(reason) => {
                let event = Event::Rejected(rejected(&name, reason.clone(), revision));
                self.unusable.insert(name, reason);
                Some(event)
            }
            None => {
                self.unusable.remove(&name);
                Some(Event::Delete { key: key_of(&name), mod_revision: revision })
            }
        }
    }

    /// The addresses that are shared now and were not, or the other way round.
    fn tell_shared(&mut self, addresses: &[IpAddr]) -> Vec<Shared> {
        let mut told = Vec::new();
        for address in addresses {
            let nodes: Vec<String> =
                self.by_address.get(address).into_iter().flatten().map(ToString::to_string).collect();
            let changed =
                if nodes.len() > 1 { self.shared.insert(*address) } else { self.shared.remove(address) };
            if changed {
                told.push(Shared { address: *address, nodes });
            }
        }
        told
    }
}

/// What stands for a node whose lease names no subnet that it could have.
fn key_of(name: &str) -> Key {
    Key::Junk(format!("node {name}"))
}

fn rejected(name: &str, reason: String, mod_revision: Revision) -> Rejected {
    Rejected { key: key_of(name), reason, mod_revision }
}

fn take_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
