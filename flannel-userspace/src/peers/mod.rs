//! The table of peers: the only place that decides whether a lease is acceptable.

mod admission;
mod departures;
mod index;

use std::collections::BTreeMap;

use std::net::Ipv4Addr;

use flannel_common::Mac;
use ipnetwork::Ipv4Network;

pub use admission::{Refusal, Site};
pub use departures::{Departures, Restraint};

use self::index::Index;
use crate::kernel::Underlay;
use crate::lease::Lease;
use crate::observe::LeaseMetrics;
use crate::registry::{Event, Key, Rejected, Snapshot, SubnetKey};

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

impl Diff {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The peers, by the key of their lease. What is written later than a lease and is refused, changes nothing:
/// the peer stays as it was until its key is written well or deleted.
#[derive(Debug)]
pub struct PeerTable {
    site: Site,
    own: SubnetKey,
    index: Index,
    refused: BTreeMap<Key, RefusedLease>,
    /// etcd revision of the last word on each key that was heard of, deletions of the past aside.
    revisions: BTreeMap<Key, i64>,
    refusals: u64,
    metrics: LeaseMetrics,
}

/// A lease that did not become a peer.
#[derive(Clone, Debug)]
struct RefusedLease {
    /// Nothing where the key does not read as a lease.
    lease: Option<Lease>,
    refusal: Refusal,
}

impl PeerTable {
    /// A table without peers.
    #[must_use]
    pub fn new(site: Site) -> Self {
        let own = SubnetKey::from(site.subnet);
        Self {
            site,
            own,
            index: Index::default(),
            refused: BTreeMap::new(),
            revisions: BTreeMap::new(),
            refusals: 0,
            metrics: LeaseMetrics::default(),
        }
    }

    /// Counts refusals in `metrics`, too.
    #[must_use]
    pub fn counting(mut self, metrics: LeaseMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// The accepted peers.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.index.peers()
    }

    /// Whether a peer has this subnet.
    #[must_use]
    pub fn holds(&self, subnet: Ipv4Network) -> bool {
        self.index.holder(subnet).is_some()
    }

    /// Has leases held against the underlay as it is now. Whether it is another one than before: then those that were
    /// refused are looked at again when the next snapshot tells them.
    pub fn move_to(&mut self, underlay: &Underlay) -> bool {
        let addresses = vec![underlay.address, underlay.public_ip];
        if self.site.addresses == addresses && self.site.connected == underlay.networks {
            return false;
        }
        self.site.addresses = addresses;
        self.site.connected.clone_from(&underlay.networks);
        for key in self.refused.keys() {
            self.revisions.insert(key.clone(), 0);
        }
        !self.refused.is_empty()
    }

    /// The keys that are refused at present, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&Key, &Refusal)> {
        self.refused.iter().map(|(key, refused)| (key, &refused.refusal))
    }

    /// How many writes were refused so far.
    #[must_use]
    pub const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Makes the table what `snapshot` says.
    pub fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Diff {
        let mut diff = Diff::default();
        self.forget_absent(snapshot, &mut diff);
        // The older write first: of two leases that exclude each other, every host then accepts the same.
        let mut leases: Vec<&Lease> = snapshot.leases.iter().collect();
        leases.sort_by_key(|lease| lease.mod_revision);
        for lease in leases {
            self.put(lease, &mut diff);
        }
        for rejected in &snapshot.rejected {
            self.reject(rejected);
        }
        self.reconsider(&mut diff);
        diff
    }

    /// Takes one event in. One that is older than what is known of its key changes nothing.
    pub fn apply_event(&mut self, event: &Event) -> Diff {
        let mut diff = Diff::default();
        match event {
            Event::Put(lease) => self.put(lease, &mut diff),
            Event::Rejected(rejected) => self.reject(rejected),
            Event::Delete { key, mod_revision } => {
                if self.revisions.get(key).is_none_or(|known| known < mod_revision) {
                    self.forget(key, &mut diff);
                }
            }
        }
        self.reconsider(&mut diff);
        diff
    }

    fn put(&mut self, lease: &Lease, diff: &mut Diff) {
        let key = Key::Subnet(lease.key());
        if lease.key() == self.own || !self.is_news(&key, lease.mod_revision) {
            return;
        }
        match admission::admit(&self.site, &self.index, lease) {
            Ok(peer) => {
                self.refused.remove(&key);
                self.accept(lease.key(), peer, diff);
            }
            Err(refusal) => self.refuse(key, Some(lease.clone()), refusal),
        }
    }

    fn reject(&mut self, rejected: &Rejected) {
        let Rejected { key, reason, mod_revision } = rejected;
        if *key != Key::Subnet(self.own) && self.is_news(key, *mod_revision) {
            self.refuse(key.clone(), None, Refusal::Unreadable(reason.clone()));
        }
    }

    /// Whether a write of this revision is newer than what is known of the key; then it is known now.
    fn is_news(&mut self, key: &Key, revision: i64) -> bool {
        let is_news = self.revisions.get(key).is_none_or(|known| *known < revision);
        if is_news {
            self.revisions.insert(key.clone(), revision);
        }
        is_news
    }

    fn accept(&mut self, key: SubnetKey, peer: Peer, diff: &mut Diff) {
        match self.index.insert(key, peer) {
            None => diff.added.push(peer),
            Some(before) if before != peer => diff.changed.push((before, peer)),
            Some(_) => {}
        }
    }

    fn refuse(&mut self, key: Key, lease: Option<Lease>, refusal: Refusal) {
        tracing::warn!(%key, reason = refusal.label(), "lease refused: {refusal}");
        self.refusals += 1;
        self.metrics.rejected(&refusal);
        self.refused.insert(key, RefusedLease { lease, refusal });
    }

    fn forget_absent(&mut self, snapshot: &Snapshot, diff: &mut Diff) {
        let leases = snapshot.leases.iter().map(|lease| Key::Subnet(lease.key()));
        let rejected = snapshot.rejected.iter().map(|rejected| rejected.key.clone());
        let present: std::collections::BTreeSet<Key> = leases.chain(rejected).collect();
        let is_absent = |key: &&Key| !present.contains(*key);
        // What was written after the listing is for the watch to tell.
        let is_older = |key: &&Key| self.revisions[*key] <= snapshot.revision;
        let absent: Vec<Key> = self.revisions.keys().filter(is_absent).filter(is_older).cloned().collect();
        for key in &absent {
            self.forget(key, diff);
        }
    }

    fn forget(&mut self, key: &Key, diff: &mut Diff) {
        self.revisions.remove(key);
        self.refused.remove(key);
        if let Key::Subnet(key) = key {
            diff.removed.extend(self.index.remove(key));
        }
    }

    /// A lease that was refused because of another one has a second chance when others have changed.
    fn reconsider(&mut self, diff: &mut Diff) {
        if diff.changed.is_empty() && diff.removed.is_empty() {
            return;
        }
        let conflicts = self.refused.values().filter(|refused| refused.refusal.is_conflict());
        let leases: Vec<Lease> = conflicts.filter_map(|refused| refused.lease.clone()).collect();
        for lease in leases {
            if let Ok(peer) = admission::admit(&self.site, &self.index, &lease) {
                tracing::info!(key = %lease.key(), "the lease is acceptable now");
                self.refused.remove(&Key::Subnet(lease.key()));
                self.accept(lease.key(), peer, diff);
            }
        }
    }
}

#[cfg(test)]
mod tests;
