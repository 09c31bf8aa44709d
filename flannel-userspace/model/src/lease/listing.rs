//! What a registry lists, and what it says has changed since.

use ipnetwork::Ipv4Network;

use super::{Key, Lease};

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
