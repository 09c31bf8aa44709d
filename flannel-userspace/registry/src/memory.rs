//! A registry in memory, for tests of what uses one.
#![expect(clippy::unwrap_used, reason = "a test that asks for what is no subnet fails")]

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flannel_model::family::Subnets;
use flannel_model::lease::{
    Attributes, EtcdLeaseId, Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey,
};
use ipnetwork::IpNetwork;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{
    Claim, ConfigChanges, ConfigSource, Expected, Found, LeaseSource, LeaseStore, RegistryError, Watch,
    WatchError, Written,
};

/// What stands there and what happened.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<SubnetKey, Found>,
    events: Vec<Event>,
    /// Which machine has which address.
    hosts: BTreeMap<IpAddr, String>,
    /// The outcome of the next writes.
    faults: VecDeque<Fault>,
    writes: Vec<Write>,
    config: Option<String>,
    /// Counts what happened to the configuration.
    configs: usize,
    /// How often the configuration was asked for.
    reads: usize,
    /// How often whoever follows the configuration was told that nothing is told any more.
    breaks: usize,
    /// Whether nobody can be told of changes.
    is_deaf: bool,
}

/// What a daemon tried to write.
#[derive(Clone)]
pub struct Write {
    /// When.
    pub at: Instant,
    /// What the host says of itself.
    pub attributes: Attributes,
    /// How long it is to last; nothing for a reservation.
    pub ttl: Option<Duration>,
}

/// The outcome of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Request,
    /// It is written, but the writer does not learn it.
    Answer,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.state());
        self.changed.notify_waiters();
        outcome
    }

    /// Writes like an operator, whatever stands there.
    pub fn put(&self, subnet: &str, attributes: &Attributes, term: Option<EtcdLeaseId>) -> Lease {
        self.change(|state| state.put(key_of(subnet), attributes, term))
    }

    /// Writes like an operator who has mistaken the key.
    pub fn put_junk(&self, subnet: &str) {
        self.change(|state| state.put_junk(key_of(subnet)));
    }

    /// Deletes like an operator.
    pub fn remove(&self, subnet: &str) {
        self.change(|state| state.remove(key_of(subnet)));
    }

    /// Loses everything, its history too.
    pub fn wipe(&self) {
        *self.state() = State::default();
    }

    /// Has as many of the next writes fail.
    pub fn fail(&self, fault: Fault, times: usize) {
        self.state().faults = std::iter::repeat_n(fault, times).collect();
    }

    /// The lease at the key of that subnet.
    pub fn lease(&self, subnet: &str) -> Option<Lease> {
        match self.state().entries.get(&key_of(subnet)) {
            Some(Found::Lease(lease)) => Some(lease.clone()),
            _ => None,
        }
    }

    /// Writes the network configuration, or deletes it.
    pub fn put_config(&self, config: Option<&str>) {
        self.change(|state| {
            state.config = config.map(str::to_owned);
            state.configs += 1;
        });
    }

    /// Whether nobody hears of changes of the configuration any more, but at once that this is so.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.change(|state| {
            state.is_deaf = is_deaf;
            state.breaks += 1;
        });
    }

    /// How often the configuration was asked for.
    pub fn config_reads(&self) -> usize {
        self.state().reads
    }

    /// Everything daemons tried to write.
    pub fn writes(&self) -> Vec<Write> {
        self.state().writes.clone()
    }
}

/// The key of one subnet.
fn key_of(subnet: &str) -> SubnetKey {
    let subnet: IpNetwork = subnet.parse().unwrap();
    SubnetKey(Subnets::from(subnet))
}

impl State {
    /// One more with each event; as etcd's, the first is 1.
    fn revision(&self) -> Revision {
        Revision::new(1 + i64::try_from(self.events.len()).unwrap())
    }

    fn put(&mut self, key: SubnetKey, attributes: &Attributes, term: Option<EtcdLeaseId>) -> Lease {
        let mod_revision = self.revision().next();
        let created = match self.entries.get(&key) {
            Some(Found::Lease(lease)) => lease.created,
            _ => mod_revision,
        };
        let attributes = attributes.clone();
        let lease = Lease { subnets: key.0, attributes, mod_revision, created, term };
        self.entries.insert(key, Found::Lease(lease.clone()));
        self.events.push(Event::Put(lease.clone()));
        lease
    }

    fn put_junk(&mut self, key: SubnetKey) {
        let mod_revision = self.revision().next();
        let rejected = Rejected { key: Key::Subnet(key), reason: "junk".to_owned(), mod_revision };
        self.entries.insert(key, Found::Rejected(rejected.clone()));
        self.events.push(Event::Rejected(rejected));
    }

    fn remove(&mut self, key: SubnetKey) {
        self.entries.remove(&key);
        let mod_revision = self.revision().next();
        self.events.push(Event::Delete { key: Key::Subnet(key), mod_revision });
    }
}

impl State {
    fn write(
        &mut self,
        key: SubnetKey,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        // Where time stands still until everybody waits, nothing else ends it.
        assert!(self.writes.len() < 10_000, "somebody writes without a pause");
        self.writes.push(Write { at: Instant::now(), attributes: attributes.clone(), ttl });
        let fault = self.faults.pop_front();
        if fault == Some(Fault::Request) {
            return Err(RegistryError::NoEndpoint);
        }
        let found = self.entries.get(&key).cloned().unwrap_or(Found::Nothing);
        let actual = match &found {
            Found::Nothing => Expected::Absent,
            Found::Lease(Lease { mod_revision, .. }) | Found::Rejected(Rejected { mod_revision, .. }) => {
                Expected::Revision(*mod_revision)
            }
        };
        if actual != expected {
            return Ok(Written::Refused(found));
        }
        let term = ttl.and_then(|_| EtcdLeaseId::from_id(self.revision().next().number()));
        let lease = self.put(key, attributes, term);
        if fault.is_some() { Err(RegistryError::NoEndpoint) } else { Ok(Written::Done(lease)) }
    }
}

impl ConfigSource for Memory {
    type Changes = MemoryConfigChanges;

    async fn config(&self) -> Result<String, RegistryError> {
        let mut state = self.state();
        state.reads += 1;
        state.config.clone().ok_or_else(|| RegistryError::ConfigMissing { key: "config".to_owned() })
    }

    async fn config_changes(&self) -> Result<MemoryConfigChanges, RegistryError> {
        let state = self.state();
        Ok(MemoryConfigChanges { memory: self.clone(), configs: state.configs, breaks: state.breaks })
    }
}

/// What happens to the configuration.
pub struct MemoryConfigChanges {
    memory: Memory,
    configs: usize,
    breaks: usize,
}

impl ConfigChanges for MemoryConfigChanges {
    async fn next(&mut self) -> Result<(), WatchError> {
        loop {
            let changed = self.memory.changed.notified();
            let (configs, breaks, is_deaf) = {
                let state = self.memory.state();
                (state.configs, state.breaks, state.is_deaf)
            };
            if is_deaf || breaks != self.breaks {
                return Err(WatchError::Broken { endpoint: "memory".to_owned(), error: None });
            }
            if configs != self.configs {
                self.configs = configs;
                return Ok(());
            }
            changed.await;
        }
    }
}

impl LeaseSource for Memory {
    type Watch = MemoryWatch;

    async fn list(&self) -> Result<Snapshot, RegistryError> {
        let snapshot = {
            let state = self.state();
            let mut snapshot = Snapshot { revision: state.revision(), ..Snapshot::default() };
            for found in state.entries.values().cloned() {
                match found {
                    Found::Nothing => {}
                    Found::Lease(lease) => snapshot.leases.push(lease),
                    Found::Rejected(rejected) => snapshot.rejected.push(rejected),
                }
            }
            snapshot
        };
        // Others get their turn between a listing and the write that follows from it.
        tokio::task::yield_now().await;
        Ok(snapshot)
    }

    async fn reconnect(&self) {}

    async fn watch(&self, revision: Revision) -> Result<MemoryWatch, RegistryError> {
        Ok(MemoryWatch { memory: self.clone(), revision })
    }
}

impl LeaseStore for Memory {
    async fn write(
        &self,
        key: SubnetKey,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        tokio::task::yield_now().await;
        self.change(|state| state.write(key, attributes, ttl, expected))
    }

    async fn delete(&self, lease: &Lease) -> Result<bool, RegistryError> {
        Ok(self.change(|state| {
            let is_same = state.entries.get(&lease.key()) == Some(&Found::Lease(lease.clone()));
            if is_same {
                state.remove(lease.key());
            }
            is_same
        }))
    }

    async fn time_to_live(&self, _: EtcdLeaseId) -> Result<Option<Duration>, RegistryError> {
        Ok(None)
    }

    async fn claim(&self, public_ip: IpAddr, identity: &str, _: Duration) -> Result<Claim, RegistryError> {
        let mut state = self.state();
        if state.faults.pop_front() == Some(Fault::Request) {
            return Err(RegistryError::NoEndpoint);
        }
        let holder = state.hosts.entry(public_ip).or_insert_with(|| identity.to_owned());
        Ok(if holder == identity {
            Claim::Held(EtcdLeaseId::from_id(1))
        } else {
            Claim::Taken(holder.clone())
        })
    }

    async fn keep(&self, _: EtcdLeaseId) -> Result<bool, RegistryError> {
        Ok(true)
    }

    async fn revoke(&self, _: EtcdLeaseId) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// What happens in the memory.
pub struct MemoryWatch {
    memory: Memory,
    revision: Revision,
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let changed = self.memory.changed.notified();
            let told = usize::try_from(self.revision.number() - 1).unwrap();
            let events = self.memory.state().events.get(told..).unwrap_or_default().to_vec();
            if !events.is_empty() {
                self.revision = events.iter().fold(self.revision, |revision, _| revision.next());
                return Ok(events);
            }
            changed.await;
        }
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}
