//! The registry: where the configuration of the network and the leases of all hosts stand.
//!
//! What a registry is to the control plane ([`ConfigSource`], [`LeaseSource`], [`LeaseStore`]), and each kind of one, live
//! here. What is done with leases does not.

mod error;
pub mod etcd;
mod kubernetes;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod metrics;
mod remedy;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::lease::{Attributes, EtcdLeaseId, Event, Lease, Rejected, Revision, Snapshot, SubnetKey};

pub use error::{RegistryError, WatchError};
pub use kubernetes::{KubernetesMetrics, KubernetesOperation};
pub use metrics::{EtcdMetrics, EtcdOperation};

/// Where the network's configuration stands: a registry, or a file, say. Clones share one connection.
pub trait ConfigSource: Clone + Send + Sync + 'static {
    /// Tells of changes.
    type Changes: ConfigChanges;

    /// The network configuration, JSON as the operator wrote it.
    ///
    /// # Errors
    /// [`RegistryError::ConfigMissing`] when nobody has written one; others when the registry cannot be read.
    fn config(&self) -> impl Future<Output = Result<String, RegistryError>> + Send;

    /// Tells of every change from now on: whoever reads the configuration after this misses none.
    ///
    /// # Errors
    /// The registry cannot be reached.
    fn config_changes(&self) -> impl Future<Output = Result<Self::Changes, RegistryError>> + Send;
}

/// Tells that the network's configuration may have changed. What it is now, [`ConfigSource::config`] says.
pub trait ConfigChanges: Send + 'static {
    /// Waits for a change. Dropping the future loses nothing.
    ///
    /// # Errors
    /// No change is told of any more: begin again with [`ConfigSource::config_changes`].
    fn next(&mut self) -> impl Future<Output = Result<(), WatchError>> + Send;
}

/// Who leases which subnet, as far as others may know: listed, and followed from there. Clones share one connection.
pub trait LeaseSource: Clone + Send + Sync + 'static {
    /// Follows the leases.
    type Watch: Watch;

    /// How it is to be treated.
    const MANNERS: Manners = Manners::FREQUENT;

    /// Everything below the lease prefix at one revision. What does not parse as a lease is returned as such and spoils
    /// nothing else.
    ///
    /// # Errors
    /// The registry cannot be read.
    fn list(&self) -> impl Future<Output = Result<Snapshot, RegistryError>> + Send;

    /// Gives every connection up and makes new ones on the next use: the host's address has changed, say.
    fn reconnect(&self) -> impl Future<Output = ()> + Send;

    /// Follows everything below the lease prefix that happens after `revision`.
    ///
    /// # Errors
    /// The registry cannot be reached. That history up to `revision` is gone shows in [`Watch::next`].
    fn watch(&self, revision: Revision) -> impl Future<Output = Result<Self::Watch, RegistryError>> + Send;
}

/// How often hosts come back to a registry, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// How often the leases are listed though the watch says what changes; less often where listing takes long.
    pub listing: Duration,
    /// Pauses between attempts to reach it: from the first to the longest.
    pub retry: (Duration, Duration),
}

impl Manners {
    /// Of a registry that lists quickly, and has been seen to lose events: etcd.
    pub const FREQUENT: Self = Self {
        listing: Duration::from_secs(60),
        retry: (Duration::from_millis(200), Duration::from_secs(2)),
    };
}

/// Where a host writes its own lease and its claim to its address: hosts choose subnets themselves, and what they write
/// ends unless they keep it. Clones share one connection.
pub trait LeaseStore: Clone + Send + Sync + 'static {
    /// Writes the lease of `key` if that still is as `expected`. The lease expires after `ttl`, or
    /// never: a reservation.
    ///
    /// # Errors
    /// The registry cannot be written. Whether it was written is then unknown; the next call with the same expectation
    /// says.
    fn write(
        &self,
        key: SubnetKey,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> impl Future<Output = Result<Written, RegistryError>> + Send;

    /// Deletes a lease unless somebody has written it since; returns whether it did.
    ///
    /// # Errors
    /// The registry cannot be written.
    fn delete(&self, lease: &Lease) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// How long until the etcd lease `term` expires; `None` if it has. One request: not for every lease of a listing.
    ///
    /// # Errors
    /// The registry cannot be read.
    fn time_to_live(
        &self,
        term: EtcdLeaseId,
    ) -> impl Future<Output = Result<Option<Duration>, RegistryError>> + Send;

    /// Says under the host's own key that the machine `identity` has this public address, unless another one says so.
    /// Without [`LeaseStore::keep`] that ends after `ttl`.
    ///
    /// # Errors
    /// The registry cannot be written.
    fn claim(
        &self,
        public_ip: IpAddr,
        identity: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Claim, RegistryError>> + Send;

    /// Renews the etcd lease `term`; returns whether it had not expired.
    ///
    /// # Errors
    /// The registry cannot be reached.
    fn keep(&self, term: EtcdLeaseId) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Revokes the etcd lease `term`, and with it every key that is still attached to it.
    ///
    /// # Errors
    /// The registry cannot be reached.
    fn revoke(&self, term: EtcdLeaseId) -> impl Future<Output = Result<(), RegistryError>> + Send;
}

/// A stream of events.
pub trait Watch: Send + 'static {
    /// The next events, in the order of their revisions; waits until there are some. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// The stream has ended: open another one after [`Watch::revision`], or list when history was compacted.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Event>, WatchError>> + Send;

    /// A revision up to which every event was delivered.
    fn revision(&self) -> Revision;
}

/// What a writer takes a key to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// Last written then.
    Revision(Revision),
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// The lease is written.
    Done(Lease),
    /// The key was not as expected, and is untouched.
    Refused(Found),
}

/// What came of a claim to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the claimer's, by this etcd lease.
    Held(Option<EtcdLeaseId>),
    /// Another machine has it.
    Taken(String),
}

/// What stands at a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A lease.
    Lease(Lease),
    /// Something that does not read as a lease.
    Rejected(Rejected),
}
