//! What a registry holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::lease::{
    Attributes, EtcdLeaseId, Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey,
};
use flannel_registry::Found;
use tokio::time::Instant;

/// The window in which requests are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Keys, etcd leases and history; and what is wrong with it.
#[derive(Default)]
pub struct Store {
    pub data: Data,
    pub last_term: i64,
    /// Hosts that cannot reach it.
    pub away: BTreeSet<usize>,
    /// Whether watches end as soon as they are opened.
    pub is_restless: bool,
    /// Whether one answer in eight is lost.
    pub is_flaky: bool,
    /// When an answer was lost last.
    pub lost: Option<Instant>,
    /// How often it was restored.
    pub history: u64,
    /// Counts what made every open watch break.
    pub breaks: u64,
    /// When each host asked lately for a listing of leases or a watch on them, or for the configuration or a watch on it.
    pub asked: BTreeMap<(usize, Asked), VecDeque<Instant>>,
    /// Counts what happened to the configuration.
    pub configs: u64,
    /// How many daemons each host has had.
    pub daemons: BTreeMap<usize, usize>,
    /// The most requests of one host within a window.
    pub busiest: usize,
    /// Which host asked for a listing, and when.
    pub listed: Vec<(usize, Instant)>,
}

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Leases,
    Configuration,
}

/// What is saved and restored.
#[derive(Clone, Default)]
pub struct Data {
    pub revision: Revision,
    pub keys: BTreeMap<SubnetKey, Found>,
    /// The events after `compacted`.
    pub events: VecDeque<Event>,
    pub compacted: Revision,
    pub terms: BTreeMap<i64, EtcdLease>,
    pub claims: BTreeMap<IpAddr, (String, i64)>,
    /// The network's configuration, as it was written.
    pub config: String,
}

/// What keys hang on.
#[derive(Clone, Copy)]
pub struct EtcdLease {
    /// The host it was granted to, and by its which daemon.
    pub of: (usize, usize),
    pub ttl: Duration,
    pub ends: Instant,
}

impl Store {
    pub fn put(&mut self, key: SubnetKey, attributes: &Attributes, term: Option<i64>) -> Lease {
        self.data.revision = self.data.revision.next();
        let created = match self.data.keys.get(&key) {
            Some(Found::Lease(lease)) => lease.created,
            _ => self.data.revision,
        };
        let lease = Lease {
            subnets: key.0,
            attributes: attributes.clone(),
            mod_revision: self.data.revision,
            created,
            term: term.and_then(EtcdLeaseId::from_id),
        };
        self.data.keys.insert(key, Found::Lease(lease.clone()));
        self.data.events.push_back(Event::Put(lease.clone()));
        lease
    }

    pub fn put_junk(&mut self, key: SubnetKey) {
        self.data.revision = self.data.revision.next();
        let rejected =
            Rejected { key: Key::Subnet(key), reason: "junk".to_owned(), mod_revision: self.data.revision };
        self.data.keys.insert(key, Found::Rejected(rejected.clone()));
        self.data.events.push_back(Event::Rejected(rejected));
    }

    pub fn remove(&mut self, key: SubnetKey) {
        if self.data.keys.remove(&key).is_some() {
            self.data.revision = self.data.revision.next();
            let key = Key::Subnet(key);
            self.data.events.push_back(Event::Delete { key, mod_revision: self.data.revision });
        }
    }

    pub fn grant(&mut self, host: usize, ttl: Duration) -> i64 {
        self.last_term += 1;
        let of = (host, self.daemons.get(&host).copied().unwrap_or_default());
        self.data.terms.insert(self.last_term, EtcdLease { of, ttl, ends: Instant::now() + ttl });
        self.last_term
    }

    pub fn end(&mut self, term: i64) {
        self.data.terms.remove(&term);
        let hangs = |found: &Found| matches!(found, Found::Lease(lease) if lease.term.is_some_and(|of| of.id() == term));
        let gone: Vec<SubnetKey> =
            self.data.keys.iter().filter(|(_, found)| hangs(found)).map(|(key, _)| *key).collect();
        gone.into_iter().for_each(|key| self.remove(key));
        self.data.claims.retain(|_, (_, of)| *of != term);
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { revision: self.data.revision, ..Snapshot::default() };
        for found in self.data.keys.values().cloned() {
            match found {
                Found::Nothing => {}
                Found::Lease(lease) => snapshot.leases.push(lease),
                Found::Rejected(rejected) => snapshot.rejected.push(rejected),
            }
        }
        snapshot
    }

    pub fn count(&mut self, host: usize, what: Asked) {
        let now = Instant::now();
        let asked = self.asked.entry((host, what)).or_default();
        asked.push_back(now);
        while asked.front().is_some_and(|at| now - *at > WINDOW) {
            asked.pop_front();
        }
        self.busiest = self.busiest.max(asked.len());
    }
}
