//! The registry: where the configuration of the network and the leases of all hosts stand.

mod error;
pub mod etcd;
pub mod key;
#[cfg(test)]
pub(crate) mod memory;

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnetwork::Ipv4Network;

pub use error::{RegistryError, WatchError};
pub use key::{Key, SubnetKey};

pub use crate::lease::EtcdLeaseId;
use crate::lease::{Attributes, Lease};

/// Access to a registry. Clones share one connection.
pub trait Registry: Clone + Send + Sync + 'static {
    /// Follows the leases.
    type Watch: Watch;

    /// The network configuration, JSON as the operator wrote it.
    ///
    /// # Errors
    /// [`RegistryError::ConfigMissing`] when nobody has written one; others when the registry cannot be read.
    fn config(&self) -> impl Future<Output = Result<String, RegistryError>> + Send;

    /// Everything below the lease prefix at one revision. What does not read as a lease is told as such and
    /// spoils nothing else.
    ///
    /// # Errors
    /// The registry cannot be read.
    fn list(&self) -> impl Future<Output = Result<Snapshot, RegistryError>> + Send;

    /// Writes the lease of `subnet` if its key still is as `expected`. The lease expires after `ttl`, or
    /// never: a reservation.
    ///
    /// # Errors
    /// The registry cannot be written. Whether it was written is then unknown; the next call with the same
    /// expectation tells.
    fn write(
        &self,
        subnet: Ipv4Network,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> impl Future<Output = Result<Written, RegistryError>> + Send;

    /// Deletes a lease unless somebody has written it since; tells whether it did.
    ///
    /// # Errors
    /// The registry cannot be written.
    fn delete(&self, lease: &Lease) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// How long until `term` ends by itself; nothing when it has ended. One request: not for every lease of
    /// a listing.
    ///
    /// # Errors
    /// The registry cannot be read.
    fn time_to_live(
        &self,
        term: EtcdLeaseId,
    ) -> impl Future<Output = Result<Option<Duration>, RegistryError>> + Send;

    /// Says under the host's own key that the machine `identity` has this public address, unless another one says so.
    /// Without [`Registry::keep`] that ends after `ttl`.
    ///
    /// # Errors
    /// The registry cannot be written.
    fn claim(
        &self,
        public_ip: Ipv4Addr,
        identity: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Claim, RegistryError>> + Send;

    /// Has `term` begin anew; tells whether it had not ended.
    ///
    /// # Errors
    /// The registry cannot be reached.
    fn keep(&self, term: EtcdLeaseId) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Gives every connection up and makes new ones on the next use: the host's address has changed, say.
    fn reconnect(&self) -> impl Future<Output = ()> + Send;

    /// Follows everything below the lease prefix that happens after `revision`.
    ///
    /// # Errors
    /// The registry cannot be reached. That history up to `revision` is gone shows in [`Watch::next`].
    fn watch(&self, revision: i64) -> impl Future<Output = Result<Self::Watch, RegistryError>> + Send;
}

/// A stream of events.
pub trait Watch: Send + 'static {
    /// The next events, in the order of their revisions; waits until there are some. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// The stream has ended: open another one after [`Watch::revision`], or list when history was compacted.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Event>, WatchError>> + Send;

    /// A revision up to which every event was told.
    fn revision(&self) -> i64;
}

/// Everything below the lease prefix at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The revision of the moment: events after it are what is missing.
    pub revision: i64,
    /// The keys that read as leases.
    pub leases: Vec<Lease>,
    /// The keys that do not.
    pub rejected: Vec<Rejected>,
    /// Whether the registry has told of a later moment before: it was restored from an older copy or made anew, and
    /// revisions known from before mean nothing any more.
    pub history_reset: bool,
}

impl Snapshot {
    /// Every subnet some key names, whatever its value: none of them is free.
    #[must_use]
    pub fn subnets(&self) -> Vec<Ipv4Network> {
        let rejected = self.rejected.iter().filter_map(|rejected| rejected.key.subnet());
        // "0.0.0.0-0" stands in the place of the IPv4 subnet where only IPv6 is leased.
        self.leases
            .iter()
            .map(|lease| lease.subnet)
            .chain(rejected)
            .filter(|subnet| subnet.prefix() > 0)
            .collect()
    }
}

/// A key that does not read as a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The key; it may name a subnet, which is then not free.
    pub key: Key,
    /// What is wrong with the name or the value.
    pub reason: String,
    /// etcd revision of the last write of the key.
    pub mod_revision: i64,
}

/// Something happened to a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A lease was written.
    Put(Lease),
    /// Something was written that does not read as a lease.
    Rejected(Rejected),
    /// The key was deleted, or expired.
    Delete {
        /// The key.
        key: Key,
        /// etcd revision of the deletion.
        mod_revision: i64,
    },
}

impl Event {
    /// The key it happened to.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(lease) => Key::Subnet(lease.key()),
            Self::Rejected(Rejected { key, .. }) | Self::Delete { key, .. } => key.clone(),
        }
    }

    /// etcd revision at which it happened.
    #[must_use]
    pub const fn mod_revision(&self) -> i64 {
        match self {
            Self::Put(lease) => lease.mod_revision,
            Self::Rejected(Rejected { mod_revision, .. }) | Self::Delete { mod_revision, .. } => {
                *mod_revision
            }
        }
    }
}

/// What a writer takes a key to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// Last written at this etcd revision.
    Revision(i64),
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// The lease stands as told.
    Done(Lease),
    /// The key was not as expected, and is untouched.
    Refused(Found),
}

/// What came of a claim to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the claimer's, for this term.
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
