//! A registry in memory, for tests of what uses one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnetwork::Ipv4Network;

use super::{
    Claim, Event, Expected, Found, Key, Registry, RegistryError, Snapshot, Watch, WatchError, Written,
};
use crate::lease::{Attributes, Lease, Term};

/// The leases, and how often they were written.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) leases: BTreeMap<Ipv4Network, Lease>,
    pub(crate) revision: i64,
    pub(crate) hosts: BTreeMap<Ipv4Addr, String>,
    /// How many of the next writes fail.
    pub(crate) failing: u32,
}

impl Memory {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Writes like an operator, whatever stands there.
    pub(crate) fn put(&self, subnet: &str, attributes: &Attributes, term: Option<Term>) -> Lease {
        self.state().put(subnet.parse().unwrap(), attributes, term)
    }

    /// Deletes like an operator.
    pub(crate) fn remove(&self, subnet: &str) -> Event {
        let mut state = self.state();
        state.revision += 1;
        let subnet: Ipv4Network = subnet.parse().unwrap();
        state.leases.remove(&subnet);
        Event::Delete { key: Key::Subnet(subnet.into()), mod_revision: state.revision }
    }
}

impl State {
    fn fail(&mut self) -> Result<(), RegistryError> {
        match self.failing.checked_sub(1) {
            Some(left) => {
                self.failing = left;
                Err(RegistryError::NoEndpoint)
            }
            None => Ok(()),
        }
    }

    fn put(&mut self, subnet: Ipv4Network, attributes: &Attributes, term: Option<Term>) -> Lease {
        self.revision += 1;
        let mod_revision = self.revision;
        let lease = Lease { subnet, ipv6_subnet: None, attributes: attributes.clone(), mod_revision, term };
        self.leases.insert(subnet, lease.clone());
        lease
    }
}

impl Registry for Memory {
    type Watch = NoWatch;

    async fn config(&self) -> Result<String, RegistryError> {
        Err(RegistryError::ConfigMissing { key: "config".to_owned() })
    }

    async fn list(&self) -> Result<Snapshot, RegistryError> {
        let (revision, leases) = {
            let state = self.state();
            (state.revision, state.leases.values().cloned().collect())
        };
        tokio::task::yield_now().await;
        Ok(Snapshot { revision, leases, rejected: Vec::new() })
    }

    async fn write(
        &self,
        subnet: Ipv4Network,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        state.fail()?;
        let found = state.leases.get(&subnet).cloned();
        if found.as_ref().map_or(Expected::Absent, |lease| Expected::Revision(lease.mod_revision)) != expected
        {
            return Ok(Written::Refused(found.map_or(Found::Nothing, Found::Lease)));
        }
        let term = ttl.and_then(|_| Term::from_id(state.revision + 1));
        Ok(Written::Done(state.put(subnet, attributes, term)))
    }

    async fn delete(&self, lease: &Lease) -> Result<bool, RegistryError> {
        let mut state = self.state();
        let is_same = state.leases.get(&lease.subnet) == Some(lease);
        if is_same {
            state.leases.remove(&lease.subnet);
            state.revision += 1;
        }
        Ok(is_same)
    }

    async fn time_to_live(&self, _: Term) -> Result<Option<Duration>, RegistryError> {
        Ok(None)
    }

    async fn claim(&self, public_ip: Ipv4Addr, identity: &str, _: Duration) -> Result<Claim, RegistryError> {
        let mut state = self.state();
        state.fail()?;
        let holder = state.hosts.entry(public_ip).or_insert_with(|| identity.to_owned());
        Ok(if holder == identity { Claim::Held(Term::from_id(1)) } else { Claim::Taken(holder.clone()) })
    }

    async fn keep(&self, _: Term) -> Result<bool, RegistryError> {
        Ok(true)
    }

    async fn reconnect(&self) {}

    async fn watch(&self, _: i64) -> Result<NoWatch, RegistryError> {
        Ok(NoWatch)
    }
}

/// Nothing ever happens.
pub(crate) struct NoWatch;

impl Watch for NoWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        std::future::pending().await
    }

    fn revision(&self) -> i64 {
        0
    }
}
