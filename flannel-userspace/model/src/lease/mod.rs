//! Leases as they stand in a registry: who owns which subnet, and what the holder says of itself.

mod attributes;
mod key;
mod listing;

use std::fmt;
use std::num::NonZeroI64;

use ipnetwork::{Ipv4Network, Ipv6Network};

pub use attributes::{Attributes, Data, ValueError, field};
pub use key::{Key, ParseKeyError, SubnetKey};
pub use listing::{Event, Rejected, Snapshot};

/// A lease as it stands in the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The leased subnet. Nothing is checked: it may have host bits or lie anywhere.
    pub subnet: Ipv4Network,
    /// The IPv6 subnet leased along with it; told, not served.
    pub ipv6_subnet: Option<Ipv6Network>,
    /// What its holder says of itself.
    pub attributes: Attributes,
    /// etcd revision of the last write of the key; an event with an older one is out of date.
    pub mod_revision: i64,
    /// etcd revision at which the key was created; unlike the other it outlasts renewals.
    pub created: i64,
    /// What makes the lease expire; none with a reservation, which stays until somebody deletes it.
    pub term: Option<EtcdLeaseId>,
}

impl Lease {
    /// The name of its key.
    #[must_use]
    pub const fn key(&self) -> SubnetKey {
        SubnetKey { subnet: self.subnet, ipv6_subnet: self.ipv6_subnet }
    }
}

/// The limit of a lease in time: the id of what etcd calls a lease, on which the key hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtcdLeaseId(NonZeroI64);

impl EtcdLeaseId {
    /// The id as etcd tells it; zero stands for "none".
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
