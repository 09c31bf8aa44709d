//! The keys in etcd, and how a key and its value are parsed.

use std::net::IpAddr;

use etcd_client::KeyValue;
use flannel_model::lease::{Attributes, EtcdLeaseId, Key, Lease, Rejected, Revision, SubnetKey};

use crate::Found;
use crate::error::reason_of;

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// Key of the network configuration.
    pub(super) fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// What every lease key begins with.
    pub(super) fn leases(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// The first key behind all of those.
    pub(super) fn leases_end(&self) -> String {
        // '0' follows '/'.
        format!("{}/subnets0", self.prefix)
    }

    /// Key under which the machine says that it has this address. Stock flannel does not look there.
    pub(super) fn host(&self, public_ip: IpAddr) -> String {
        format!("{}/hosts/{public_ip}", self.prefix)
    }

    /// The lease's key as etcd has it.
    pub(super) fn lease(&self, key: SubnetKey) -> String {
        format!("{}{key}", self.leases())
    }

    /// The key without its prefix.
    pub(super) fn key(&self, kv: &KeyValue) -> Key {
        let name = kv.key();
        Key::from_bytes(name.strip_prefix(self.leases().as_bytes()).unwrap_or(name))
    }

    /// The lease a key and its value make, if they do.
    pub(super) fn entry(&self, kv: &KeyValue) -> Result<Lease, Rejected> {
        let key = self.key(kv);
        let rejected = |key, reason| Rejected { key, reason, mod_revision: Revision::new(kv.mod_revision()) };
        let Key::Subnet(SubnetKey(subnets)) = key else {
            return Err(rejected(key, flannel_model::lease::ParseKeyError.to_string()));
        };
        let attributes =
            Attributes::from_json(kv.value()).map_err(|error| rejected(key, reason_of(&error)))?;
        Ok(Lease {
            subnets,
            attributes,
            mod_revision: Revision::new(kv.mod_revision()),
            created: Revision::new(kv.create_revision()),
            term: EtcdLeaseId::from_id(kv.lease()),
        })
    }

    /// The same for a key that was read by itself.
    pub(super) fn found(&self, kv: Option<&KeyValue>) -> Found {
        kv.map_or(Found::Nothing, |kv| self.entry(kv).map_or_else(Found::Rejected, Found::Lease))
    }
}
