//! What a registry lists, and what it says has changed since.

use ipnetwork::IpNetwork;

use super::{Key, Lease, Revision};

/// Everything below the lease prefix at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The revision of the moment: events after it are what is missing.
    pub revision: Revision,
    /// The keys that read as leases.
    pub leases: Vec<Lease>,
    /// The keys that do not.
    pub rejected: Vec<Rejected>,
    /// Whether the registry has reported a later revision before: it was restored from an older copy or created again,
    /// and revisions known from before mean nothing any more.
    pub history_reset: bool,
}

impl Snapshot {
    /// Every subnet some key names, whatever its value: none of them is free.
    #[must_use]
    pub fn subnets(&self) -> Vec<IpNetwork> {
        let rejected = self.rejected.iter().map(|rejected| rejected.key.subnets());
        let all = self.leases.iter().map(|lease| lease.subnets).chain(rejected);
        all.flat_map(|subnets| subnets.iter()).filter(|subnet| subnet.prefix() > 0).collect()
    }
}

/// A key that does not read as a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The key; it may name a subnet, which is then not free.
    pub key: Key,
    /// What is wrong with the name or the value.
    pub reason: String,
    /// The last write of the key.
    pub mod_revision: Revision,
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
        /// The deletion.
        mod_revision: Revision,
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

    /// When it happened.
    #[must_use]
    pub const fn mod_revision(&self) -> Revision {
        match self {
            Self::Put(lease) => lease.mod_revision,
            Self::Rejected(Rejected { mod_revision, .. }) | Self::Delete { mod_revision, .. } => {
                *mod_revision
            }
        }
    }
}
