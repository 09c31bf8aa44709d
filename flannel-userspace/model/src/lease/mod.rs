//! Leases as they stand in a registry: who owns which subnet, and what the holder says of itself.

mod attributes;
mod key;
mod listing;

use std::fmt;
use std::num::NonZeroI64;

pub use attributes::{Attributes, Data, ValueError, field};
pub use key::{Key, ParseKeyError, SubnetKey};
pub use listing::{Event, Rejected, Snapshot};

use crate::family::Subnets;

/// A lease as it stands in the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The leased subnets. Nothing is checked: they may have host bits or lie anywhere.
    pub subnets: Subnets,
    /// What its holder says of itself.
    pub attributes: Attributes,
    /// The last write of the key; an event with an older one is out of date.
    pub mod_revision: Revision,
    /// The write that created the key; unlike the other it outlasts renewals.
    pub created: Revision,
    /// What makes the lease expire; none with a reservation, which stays until somebody deletes it.
    pub term: Option<EtcdLeaseId>,
}

impl Lease {
    /// The name of its key.
    #[must_use]
    pub const fn key(&self) -> SubnetKey {
        SubnetKey(self.subnets)
    }
}

/// A moment in a registry's history: which of two writes was the later one. Nothing else follows from the number.
///
/// In etcd it is the revision of the store; in Kubernetes the `resourceVersion`, which clients may compare as a number
/// since 1.35 (KEP-5504), and which was etcd's revision before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// Before anything was written.
    pub const ZERO: Self = Self(0);

    /// The moment of that number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Its number in the registry.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The first moment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The limit of a lease in time: the id of what etcd calls a lease, on which the key hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtcdLeaseId(NonZeroI64);

impl EtcdLeaseId {
    /// etcd's number; zero stands for "none".
    #[must_use]
    pub const fn from_id(id: i64) -> Option<Self> {
        match NonZeroI64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The etcd lease id.
    #[must_use]
    pub const fn id(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for EtcdLeaseId {
    /// As etcdctl shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
