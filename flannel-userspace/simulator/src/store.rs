//! What a registry holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_model::lease::{Attributes, EtcdLeaseId, Event, Key, Lease, Rejected, Snapshot};
use flannel_registry::Found;
use ipnetwork::Ipv4Network;
use tokio::time::Instant;

/// The window in which requests are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Keys, terms and history; and what is wrong with it.
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
    /// When each host asked for a listing or a watch lately.
    pub asked: BTreeMap<usize, VecDeque<Instant>>,
    /// How many daemons each host has had.
    pub daemons: BTreeMap<usize, usize>,
    /// The most requests of one host within a window.
    pub busiest: usize,
}

/// What is saved and restored.
#[derive(Clone, Default)]
pub struct Data {
    pub revision: i64,
    pub keys: BTreeMap<Ipv4Network, Found>,
    /// The events after `compacted`.
    pub events: VecDeque<Event>,
    pub compacted: i64,
    pub terms: BTreeMap<i64, Term>,
    pub claims: BTreeMap<Ipv4Addr, (String, i64)>,
}

/// What keys hang on.
#[derive(Clone, Copy)]
pub struct Term {
    /// The host it was granted to, and by its which daemon.
    pub of: (usize, usize),
    pub ttl: Duration,
    pub ends: Instant,
}

impl Store {
    pub fn put(&mut self, subnet: Ipv4Network, attributes: &Attributes, term: Option<i64>) -> Lease {
        self.data.revision += 1;
        let created = match self.data.keys.get(&subnet) {
            Some(Found::Lease(lease)) => lease.created,
            _ => self.data.revision,
        };
        let lease = Lease {
            subnet,
            ipv6_subnet: None,
            attributes: attributes.clone(),
            mod_revision: self.data.revision,
            created,
            term: term.and_then(EtcdLeaseId::from_id),
        };
        self.data.keys.insert(subnet, Found::Lease(lease.clone()));
        self.data.events.push_back(Event::Put(lease.clone()));
        lease
    }

    pub fn put_junk(&mut self, subnet: Ipv4Network) {
        self.data.revision += 1;
        let key = Key::Subnet(subnet.into());
        let rejected = Rejected { key, reason: "junk".to_owned(), mod_revision: self.data.revision };
        self.data.keys.insert(subnet, Found::Rejected(rejected.clone()));
        self.data.events.push_back(Event::Rejected(rejected));
    }

    pub fn remove(&mut self, subnet: Ipv4Network) {
        if self.data.keys.remove(&subnet).is_some() {
            self.data.revision += 1;
            let key = Key::Subnet(subnet.into());
            self.data.events.push_back(Event::Delete { key, mod_revision: self.data.revision });
        }
    }

    pub fn grant(&mut self, host: usize, ttl: Duration) -> i64 {
        self.last_term += 1;
        let of = (host, self.daemons.get(&host).copied().unwrap_or_default());
        self.data.terms.insert(self.last_term, Term { of, ttl, ends: Instant::now() + ttl });
        self.last_term
    }

    pub fn end(&mut self, term: i64) {
        self.data.terms.remove(&term);
        let hangs = |found: &Found| matches!(found, Found::Lease(lease) if lease.term.is_some_and(|of| of.id() == term));
        let gone: Vec<Ipv4Network> =
            self.data.keys.iter().filter(|(_, found)| hangs(found)).map(|(subnet, _)| *subnet).collect();
        gone.into_iter().for_each(|subnet| self.remove(subnet));
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

    pub fn count(&mut self, host: usize) {
        let now = Instant::now();
        let asked = self.asked.entry(host).or_default();
        asked.push_back(now);
        while asked.front().is_some_and(|at| now - *at > WINDOW) {
            asked.pop_front();
        }
        self.busiest = self.busiest.max(asked.len());
    }
}
