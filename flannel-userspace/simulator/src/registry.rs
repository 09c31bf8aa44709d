//! A registry like etcd: revisions, leases that expire, watches that break, history that is compacted or starts again.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flannel_model::lease::{Attributes, EtcdLeaseId, Event, Lease, Rejected, Revision, Snapshot, SubnetKey};
use flannel_registry::{
    Claim, ConfigChanges, ConfigSource, Expected, Found, LeaseSource, LeaseStore, RegistryError, Watch,
    WatchError, Written,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::store::{Asked, Data, EtcdLease, Store};

/// How long a request takes that nobody answers.
const TIMEOUT: Duration = Duration::from_secs(1);
/// By then an etcd lease that was granted without an answer has expired.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// What all hosts share. Clones are the same one.
#[derive(Clone, Default)]
pub struct Cluster {
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
}

impl Cluster {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let done = change(&mut self.store());
        self.changed.notify_waiters();
        done
    }

    /// The connection of a host to it.
    pub fn client(&self, host: usize, seed: u64) -> Client {
        Client {
            cluster: self.clone(),
            host,
            newest: Arc::default(),
            history: Arc::default(),
            dice: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// Expires etcd leases, without end.
    pub async fn run(self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            let is_over = |(id, term): (&i64, &EtcdLease)| (term.ends <= now).then_some(*id);
            let over: Vec<i64> = self.store().data.terms.iter().filter_map(is_over).collect();
            if !over.is_empty() {
                self.change(|store| over.into_iter().for_each(|term| store.end(term)));
            }
        }
    }

    /// Everything that stands there.
    pub fn snapshot(&self) -> Snapshot {
        self.store().snapshot()
    }

    /// The lease at that key.
    pub fn lease(&self, key: SubnetKey) -> Option<Lease> {
        match self.store().data.keys.get(&key) {
            Some(Found::Lease(lease)) => Some(lease.clone()),
            _ => None,
        }
    }

    /// Whether that key is free, or the lease of the host with that address.
    pub fn is_free_for(&self, key: SubnetKey, public_ip: IpAddr) -> bool {
        match self.store().data.keys.get(&key) {
            None | Some(Found::Nothing) => true,
            Some(Found::Lease(lease)) => lease.attributes.public.first() == Some(public_ip),
            Some(Found::Rejected(_)) => false,
        }
    }

    /// Writes like an operator or a host of another implementation; without an etcd lease it stays.
    pub fn put(&self, key: SubnetKey, attributes: &Attributes) {
        self.change(|store| store.put(key, attributes, None));
    }

    /// Writes something that is no lease.
    pub fn put_junk(&self, key: SubnetKey) {
        self.change(|store| store.put_junk(key));
    }

    /// Deletes a key.
    pub fn remove(&self, key: SubnetKey) {
        self.change(|store| store.remove(key));
    }

    /// Deletes everything that is no lease.
    pub fn remove_junk(&self) {
        let is_junk =
            |(key, found): (&SubnetKey, &Found)| matches!(found, Found::Rejected(_)).then_some(*key);
        let junk: Vec<SubnetKey> = self.store().data.keys.iter().filter_map(is_junk).collect();
        junk.into_iter().for_each(|key| self.remove(key));
    }

    /// Writes the network's configuration.
    pub fn put_config(&self, config: &str) {
        self.change(|store| {
            config.clone_into(&mut store.data.config);
            store.configs += 1;
        });
    }

    /// Forgets the history.
    pub fn compact(&self) {
        self.change(|store| {
            store.data.compacted = store.data.revision;
            store.data.events.clear();
        });
    }

    /// Saves all of it.
    pub fn save(&self) -> Saved {
        Saved(self.store().data.clone())
    }

    /// Continues from what was saved, as an etcd that is restored: revisions begin again there.
    pub fn restore(&self, saved: Saved) {
        self.change(|store| {
            store.data = saved.0;
            store.history += 1;
            store.configs += 1;
            // Terms that were ended since are back, and end by themselves.
            store.lost = Some(Instant::now());
            store.breaks += 1;
            // etcd leases are renewed when a member becomes the leader.
            let now = Instant::now();
            store.data.terms.values_mut().for_each(|term| term.ends = now + term.ttl);
        });
    }

    /// Breaks every open watch.
    pub fn break_watches(&self) {
        self.change(|store| store.breaks += 1);
    }

    /// Whether watches end as soon as they are opened.
    pub fn set_restless(&self, is_restless: bool) {
        self.change(|store| store.is_restless = is_restless);
    }

    /// Whether answers are lost now and then.
    pub fn set_flaky(&self, is_flaky: bool) {
        self.change(|store| store.is_flaky = is_flaky);
    }

    /// Whether a host can reach it.
    pub fn set_away(&self, host: usize, is_away: bool) {
        self.change(|store| if is_away { store.away.insert(host) } else { store.away.remove(&host) });
    }

    /// How many etcd leases of a host's daemon have not expired; `None` if answers are lost, because what is granted
    /// without an answer ends by itself, and for a host that cannot reach the registry to end any.
    pub fn terms(&self, host: usize) -> Option<usize> {
        let store = self.store();
        let of = (host, store.daemons.get(&host).copied().unwrap_or_default());
        let count = store.data.terms.values().filter(|term| term.of == of).count();
        let is_known = !store.is_flaky
            && !store.away.contains(&host)
            && store.lost.is_none_or(|lost| lost.elapsed() > FORGOTTEN);
        Some(count).filter(|_| is_known)
    }

    /// The most listings and watches of one kind that one host asked for within ten seconds.
    pub fn busiest(&self) -> usize {
        self.store().busiest
    }

    /// To be called when another daemon starts on a host, which may ask again what the former one has asked.
    pub fn start(&self, host: usize) {
        let mut store = self.store();
        store.asked.retain(|(of, _), _| *of != host);
        *store.daemons.entry(host).or_default() += 1;
    }
}

/// A registry at one moment.
pub struct Saved(Data);

/// One host's connection to the registry.
#[derive(Clone)]
pub struct Client {
    cluster: Cluster,
    host: usize,
    newest: Arc<Mutex<Revision>>,
    history: Arc<AtomicU64>,
    dice: Arc<Mutex<StdRng>>,
}

impl Client {
    /// Does something there. Whether the answer arrives is another question.
    async fn ask<T>(&self, work: impl FnOnce(&mut Store) -> T) -> Result<T, RegistryError> {
        let (delay, loses) = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            (dice.random_range(200..5000), dice.random_bool(0.125))
        };
        sleep(Duration::from_micros(delay)).await;
        let (is_away, is_flaky) = {
            let store = self.cluster.store();
            (store.away.contains(&self.host), store.is_flaky)
        };
        if is_away {
            sleep(TIMEOUT).await;
            return Err(timeout());
        }
        let done = self.cluster.change(work);
        sleep(Duration::from_micros(delay)).await;
        if is_flaky && loses {
            self.cluster.store().lost = Some(Instant::now());
            return Err(timeout());
        }
        Ok(done)
    }
}

impl Client {
    /// The newest revision this host was told of.
    fn newest(&self) -> Revision {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_newest(&self, revision: Revision) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = revision;
    }
}

fn timeout() -> RegistryError {
    RegistryError::Timeout { operation: "answer", endpoint: "http://simulated".to_owned(), after: TIMEOUT }
}

impl ConfigSource for Client {
    type Changes = ClientConfigChanges;

    async fn config(&self) -> Result<String, RegistryError> {
        self.cluster.store().count(self.host, Asked::Configuration);
        self.ask(|store| store.data.config.clone()).await
    }

    async fn config_changes(&self) -> Result<ClientConfigChanges, RegistryError> {
        self.cluster.store().count(self.host, Asked::Configuration);
        let (configs, breaks) = self.ask(|store| (store.configs, store.breaks)).await?;
        Ok(ClientConfigChanges { client: self.clone(), configs, breaks })
    }
}

/// What happens to the configuration.
pub struct ClientConfigChanges {
    client: Client,
    configs: u64,
    breaks: u64,
}

impl ConfigChanges for ClientConfigChanges {
    async fn next(&mut self) -> Result<(), WatchError> {
        loop {
            let changed = self.client.cluster.changed.clone();
            let changed = changed.notified();
            {
                let store = self.client.cluster.store();
                let is_away = store.away.contains(&self.client.host);
                if store.is_restless || store.breaks != self.breaks || is_away {
                    return Err(broken());
                }
                if store.configs != self.configs {
                    self.configs = store.configs;
                    return Ok(());
                }
            }
            changed.await;
        }
    }
}

fn broken() -> WatchError {
    WatchError::Broken { endpoint: "http://simulated".to_owned(), error: None }
}

impl LeaseSource for Client {
    type Watch = ClientWatch;

    async fn list(&self) -> Result<Snapshot, RegistryError> {
        self.cluster.store().count(self.host, Asked::Leases);
        let known = self.newest();
        let (mut snapshot, history) = self.ask(|store| (store.snapshot(), store.history)).await?;
        let known_history = self.history.swap(history, Ordering::Relaxed);
        snapshot.history_reset = snapshot.revision < known || history != known_history;
        self.set_newest(snapshot.revision);
        Ok(snapshot)
    }

    async fn reconnect(&self) {}

    async fn watch(&self, revision: Revision) -> Result<ClientWatch, RegistryError> {
        self.cluster.store().count(self.host, Asked::Leases);
        let breaks = self.ask(|store| store.breaks).await?;
        Ok(ClientWatch { client: self.clone(), revision, breaks })
    }
}

impl LeaseStore for Client {
    async fn write(
        &self,
        key: SubnetKey,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        let (attributes, host) = (attributes.clone(), self.host);
        self.ask(move |store| {
            let found = store.data.keys.get(&key).cloned().unwrap_or(Found::Nothing);
            let actual = match &found {
                Found::Nothing => Expected::Absent,
                Found::Lease(Lease { mod_revision, .. }) | Found::Rejected(Rejected { mod_revision, .. }) => {
                    Expected::Revision(*mod_revision)
                }
            };
            if actual != expected {
                return Written::Refused(found);
            }
            let term = ttl.map(|ttl| store.grant(host, ttl));
            Written::Done(store.put(key, &attributes, term))
        })
        .await
    }

    async fn delete(&self, lease: &Lease) -> Result<bool, RegistryError> {
        let lease = lease.clone();
        self.ask(move |store| {
            let is_same = store.data.keys.get(&lease.key()) == Some(&Found::Lease(lease.clone()));
            if is_same {
                store.remove(lease.key());
            }
            is_same
        })
        .await
    }

    async fn time_to_live(&self, term: EtcdLeaseId) -> Result<Option<Duration>, RegistryError> {
        self.ask(move |store| store.data.terms.get(&term.id()).map(|term| term.ends - Instant::now())).await
    }

    async fn claim(&self, public_ip: IpAddr, identity: &str, ttl: Duration) -> Result<Claim, RegistryError> {
        let (identity, host) = (identity.to_owned(), self.host);
        self.ask(move |store| match store.data.claims.get(&public_ip) {
            Some((holder, _)) if *holder != identity => Claim::Taken(holder.clone()),
            _ => {
                let term = store.grant(host, ttl);
                store.data.claims.insert(public_ip, (identity, term));
                Claim::Held(EtcdLeaseId::from_id(term))
            }
        })
        .await
    }

    async fn keep(&self, term: EtcdLeaseId) -> Result<bool, RegistryError> {
        self.ask(move |store| match store.data.terms.get_mut(&term.id()) {
            Some(term) => {
                term.ends = Instant::now() + term.ttl;
                true
            }
            None => false,
        })
        .await
    }

    async fn revoke(&self, term: EtcdLeaseId) -> Result<(), RegistryError> {
        self.ask(move |store| store.end(term.id())).await
    }
}

/// What happens in the registry.
pub struct ClientWatch {
    client: Client,
    revision: Revision,
    breaks: u64,
}

impl ClientWatch {
    /// The events that are due; or why there will be none.
    fn read(&self) -> Result<Vec<Event>, WatchError> {
        let store = self.client.cluster.store();
        if store.is_restless || store.breaks != self.breaks || store.away.contains(&self.client.host) {
            return Err(broken());
        }
        if store.data.revision < self.revision || store.history != self.client.history.load(Ordering::Relaxed)
        {
            return Err(WatchError::Reset { revision: store.data.revision, known: self.revision });
        }
        if self.revision < store.data.compacted {
            return Err(WatchError::Compacted { revision: store.data.compacted });
        }
        let known = store.data.events.partition_point(|event| event.mod_revision() <= self.revision);
        Ok(store.data.events.range(known..).cloned().collect())
    }
}

impl Watch for ClientWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let changed = self.client.cluster.changed.clone();
            let changed = changed.notified();
            let events = self.read()?;
            if let Some(last) = events.last() {
                self.revision = last.mod_revision();
                self.client.set_newest(self.revision.max(self.client.newest()));
                return Ok(events);
            }
            changed.await;
        }
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}
