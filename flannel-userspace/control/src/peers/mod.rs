//! The table of peers: the only place that decides whether a lease is acceptable.

mod admission;
mod deletion_guard;
mod index;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::family::{Family, Subnets};
use flannel_model::lease::{Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey};
use flannel_model::underlay::Underlay;
use flannel_model::vxlan::{Announced, Formats, VxlanFormat};
use ipnetwork::IpNetwork;

use self::index::Index;
use crate::compact::compact;
use crate::lease::LeaseMetrics;
use crate::throttle::LogBudget;
pub use admission::{FamilySite, Refusal, Site};
pub use deletion_guard::{DeletionGuard, DeletionPolicy};

/// After this number of new peers at once the table is compacted.
const MANY: usize = 1000;

/// A host whose lease was accepted, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subnet it leases.
    pub subnet: IpNetwork,
    /// The address at which it is reached, of the same family.
    pub public_ip: IpAddr,
    /// Ethernet address of its VTEP; only with the VXLAN backend.
    pub vtep_mac: Option<Mac>,
    /// What its lease says of the format in which it takes packets; only with the VXLAN backend.
    pub announced: Announced,
    /// The format in which its own packets came last, or which its lease named before.
    pub heard: Option<VxlanFormat>,
}

impl Peer {
    /// The same with what was heard of `before`, if that is the same host. A lease no longer names the port once its host
    /// has only one.
    fn remembering(self, before: &Self) -> Self {
        let is_same = (self.public_ip, self.vtep_mac, self.announced.vni)
            == (before.public_ip, before.vtep_mac, before.announced.vni);
        let Announced { vni, port } = before.announced;
        let named = vni.zip(port).map(|(vni, port)| VxlanFormat { vni, port });
        Self { heard: named.or(before.heard).filter(|_| is_same), ..self }
    }

    /// In which of `formats` it takes packets.
    #[must_use]
    pub fn format(&self, formats: Formats) -> VxlanFormat {
        formats.of(self.announced, self.heard)
    }

    /// The family of its subnet and its address.
    #[must_use]
    pub fn family(&self) -> Family {
        self.subnet.into()
    }
}

/// What changed in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Peers that are new.
    pub added: Vec<Peer>,
    /// Changed peers: before and after, with one subnet.
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

    /// A subnet that went over from one key to another, as when its host begins with dual stack, is not gone.
    fn settled(mut self) -> Self {
        if self.added.is_empty() || self.removed.is_empty() {
            return self;
        }
        let removed = self.removed.into_iter().map(|peer| (peer.subnet, peer));
        let mut removed: BTreeMap<IpNetwork, Peer> = removed.collect();
        let (stayed, added): (Vec<Peer>, Vec<Peer>) =
            self.added.into_iter().partition(|peer| removed.contains_key(&peer.subnet));
        for after in stayed {
            let before = removed.remove(&after.subnet).filter(|before| *before != after);
            self.changed.extend(before.map(|before| (before, after)));
        }
        Self { added, removed: removed.into_values().collect(), ..self }
    }
}

/// The peers, by the key of their lease. What is written later than a lease and is refused, changes nothing:
/// the peer stays as it was until its key is written well or deleted.
#[derive(Debug)]
pub struct PeerTable {
    site: Site,
    own: SubnetKey,
    index: Index,
    refused: BTreeMap<RefusedKey, RefusedLease>,
    /// The last write of each key, that of a deletion until the next snapshot.
    revisions: BTreeMap<Key, Revision>,
    /// The revision of the last snapshot, up to which there is no further word on any key.
    listed: Revision,
    refusals: u64,
    log: LogBudget,
    metrics: LeaseMetrics,
}

/// What is refused: a lease in one family, or the whole of it.
type RefusedKey = (Key, Option<Family>);

/// A lease that did not become a peer.
#[derive(Clone, Debug)]
struct RefusedLease {
    refusal: Refusal,
    /// What it would be, were it not for other peers.
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    key: SubnetKey,
    peer: Peer,
    created: Revision,
}

impl PeerTable {
    /// A table without peers.
    #[must_use]
    pub fn new(site: Site) -> Self {
        let subnets = site.families.values().map(|family| family.subnet);
        let own = SubnetKey(subnets.fold(Subnets::NONE, Subnets::with));
        Self {
            site,
            own,
            index: Index::default(),
            refused: BTreeMap::new(),
            revisions: BTreeMap::new(),
            listed: Revision::ZERO,
            refusals: 0,
            log: LogBudget::default(),
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

    /// How many peers are accepted. Unlike counting [`PeerTable::peers`], this costs nothing.
    #[must_use]
    pub fn count(&self) -> usize {
        self.index.count()
    }

    /// Whether a peer has this subnet.
    #[must_use]
    pub fn holds(&self, subnet: IpNetwork) -> bool {
        self.index.holder(subnet).is_some()
    }

    /// Checks leases against the present underlay from now on. Returns whether it changed: then refused leases are
    /// examined again with the next snapshot.
    pub fn move_to(&mut self, underlay: &Underlay) -> bool {
        let addresses: Vec<IpAddr> = underlay.addresses.iter().chain(underlay.public.iter()).collect();
        if self.site.addresses == addresses && self.site.connected == underlay.networks {
            return false;
        }
        self.site.addresses = addresses;
        self.site.connected.clone_from(&underlay.networks);
        self.examine_again()
    }

    /// Checks leases against these formats of VXLAN from now on. Returns whether refused leases are to be examined again,
    /// with the next snapshot.
    pub fn go_over(&mut self, formats: Formats) -> bool {
        let mut is_new = false;
        let families = &mut self.site.families;
        for site in [&mut families.v4, &mut families.v6].into_iter().flatten() {
            if let Some((before, _)) = &mut site.vtep {
                is_new |= std::mem::replace(before, formats) != formats;
            }
        }
        if is_new && formats.former.is_none() {
            // Whatever comes next, this is what everybody speaks before it.
            self.index.heard_mut().for_each(|heard| *heard = None);
        }
        is_new && self.examine_again()
    }

    /// Takes note of the formats in which packets of peers arrive, by their subnets.
    pub fn hear(&mut self, formats: impl IntoIterator<Item = (IpNetwork, VxlanFormat)>) -> Diff {
        let hear = |(subnet, format)| self.index.hear(subnet, format);
        Diff { changed: formats.into_iter().filter_map(hear).collect(), ..Diff::default() }
    }

    fn examine_again(&mut self) -> bool {
        for (key, _) in self.refused.keys() {
            self.revisions.insert(key.clone(), Revision::ZERO);
        }
        !self.refused.is_empty()
    }

    /// The keys that are refused at present, wholly or in one family, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&Key, &Refusal)> {
        self.refused.iter().map(|((key, _), refused)| (key, &refused.refusal))
    }

    /// How many writes were refused so far.
    #[must_use]
    pub const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Makes the table match `snapshot`, except keys with later events.
    pub fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Diff {
        let mut diff = Diff::default();
        if snapshot.history_reset || snapshot.revision < self.listed {
            tracing::warn!(
                before = %self.listed,
                now = %snapshot.revision,
                "the registry began another history: was it created again, or restored?"
            );
            self.revisions.values_mut().for_each(|revision| *revision = Revision::ZERO);
        }
        self.listed = snapshot.revision;
        self.forget_absent(snapshot, &mut diff);
        let is_newer = |key: &Key, revision: Revision, known: &BTreeMap<Key, Revision>| {
            known.get(key).is_none_or(|known| *known != revision && *known <= snapshot.revision)
        };
        // The older key first: of two leases that exclude each other, every host then accepts the same.
        let mut leases: Vec<&Lease> = snapshot.leases.iter().collect();
        leases.sort_by_key(|lease| lease.created);
        for lease in leases {
            if is_newer(&Key::Subnet(lease.key()), lease.mod_revision, &self.revisions) {
                self.put(lease, &mut diff);
            }
        }
        for rejected in &snapshot.rejected {
            if is_newer(&rejected.key, rejected.mod_revision, &self.revisions) {
                self.reject(rejected);
            }
        }
        self.reconsider(&mut diff);
        if diff.added.len() >= MANY {
            self.index.compact();
            compact(&mut self.revisions);
        }
        diff.settled()
    }

    /// Takes one event in. One that is older than what is known of its key changes nothing.
    pub fn apply_event(&mut self, event: &Event) -> Diff {
        let mut diff = Diff::default();
        let (key, revision) = (event.key(), event.mod_revision());
        if self.revisions.get(&key).copied().unwrap_or(self.listed) >= revision {
            return diff;
        }
        match event {
            Event::Put(lease) => self.put(lease, &mut diff),
            Event::Rejected(rejected) => self.reject(rejected),
            Event::Delete { .. } => {
                self.forget(&key, &mut diff);
                self.revisions.insert(key, revision);
            }
        }
        self.reconsider(&mut diff);
        diff.settled()
    }

    fn put(&mut self, lease: &Lease, diff: &mut Diff) {
        if lease.key() == self.own {
            return;
        }
        let key = Key::Subnet(lease.key());
        self.revisions.insert(key.clone(), lease.mod_revision);
        self.unrefuse(&key);
        let peers = admission::peers_of(&self.site, lease);
        if peers.is_empty() {
            self.refuse((key, None), Refusal::OtherFamily(lease.key()), None);
            return;
        }
        for (family, peer) in Family::ALL.into_iter().zip([peers.v4, peers.v6]) {
            match peer {
                Some(Ok(peer)) => {
                    let candidate = Candidate { key: lease.key(), peer, created: lease.created };
                    if let Err(refusal) = self.admit(candidate, diff) {
                        self.refuse((key.clone(), Some(family)), refusal, Some(candidate));
                    }
                }
                Some(Err(refusal)) => self.refuse((key.clone(), Some(family)), refusal, None),
                None => {}
            }
        }
    }

    fn reject(&mut self, rejected: &Rejected) {
        let Rejected { key, reason, mod_revision } = rejected;
        if *key != Key::Subnet(self.own) {
            self.revisions.insert(key.clone(), *mod_revision);
            self.unrefuse(key);
            self.refuse((key.clone(), None), Refusal::Unreadable(reason.clone()), None);
        }
    }

    fn admit(&mut self, candidate: Candidate, diff: &mut Diff) -> Result<(), Refusal> {
        let Candidate { key, peer, .. } = candidate;
        admission::check_against(&self.index, key, &peer)?;
        self.refused.remove(&(Key::Subnet(key), Some(peer.family())));
        let peer = self.index.peer(key, peer.family()).map_or(peer, |before| peer.remembering(before));
        match self.index.insert(key, peer) {
            None => diff.added.push(peer),
            Some(before) if before != peer => diff.changed.push((before, peer)),
            Some(_) => {}
        }
        Ok(())
    }

    fn refuse(&mut self, refused: RefusedKey, refusal: Refusal, candidate: Option<Candidate>) {
        let reason = refusal.label();
        let (is_logged, unlogged) = self.log.spend(reason);
        if let Some(leases) = unlogged {
            tracing::warn!(leases, reason, "other leases were refused for this reason, too");
        }
        if is_logged {
            tracing::warn!(key = %refused.0, reason, "lease refused: {refusal}");
        } else {
            tracing::debug!(key = %refused.0, reason, "lease refused: {refusal}");
        }
        self.refusals += 1;
        self.metrics.rejected(refusal.label());
        self.refused.insert(refused, RefusedLease { refusal, candidate });
    }

    fn forget_absent(&mut self, snapshot: &Snapshot, diff: &mut Diff) {
        if self.revisions.is_empty() {
            return;
        }
        let leases = snapshot.leases.iter().map(|lease| Key::Subnet(lease.key()));
        let rejected = snapshot.rejected.iter().map(|rejected| rejected.key.clone());
        let present: BTreeSet<Key> = leases.chain(rejected).collect();
        // What was written after the listing comes by the watch.
        let is_gone =
            |(key, known): &(&Key, &Revision)| **known <= snapshot.revision && !present.contains(*key);
        let gone: Vec<Key> = self.revisions.iter().filter(is_gone).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.forget(key, diff);
        }
    }

    fn forget(&mut self, key: &Key, diff: &mut Diff) {
        self.revisions.remove(key);
        self.unrefuse(key);
        if let Key::Subnet(key) = key {
            diff.removed.extend(Family::ALL.into_iter().filter_map(|family| self.index.remove(*key, family)));
        }
    }

    /// Nothing of the key is refused any more.
    fn unrefuse(&mut self, key: &Key) {
        for part in [None, Some(Family::V4), Some(Family::V6)] {
            self.refused.remove(&(key.clone(), part));
        }
    }

    /// A lease that was refused because of another one has a second chance when others have changed, the
    /// older key first; and so again whenever that has changed a peer.
    fn reconsider(&mut self, diff: &mut Diff) {
        if diff.changed.is_empty() && diff.removed.is_empty() {
            return;
        }
        let mut candidates: Vec<Candidate> =
            self.refused.values().filter_map(|refused| refused.candidate).collect();
        candidates.sort_by_key(|candidate| candidate.created);
        while let Some(at) = candidates.iter().position(|candidate| self.admit(*candidate, diff).is_ok()) {
            let Candidate { key, .. } = candidates.remove(at);
            tracing::info!(%key, "the lease is acceptable now");
        }
    }
}

#[cfg(test)]
mod tests;
