//! Leases in etcd, read and written without any code of the daemon.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use serde_json::Value;

use crate::etcd::{Entry, Etcd};

/// Stock flannel's time to live of a lease, in seconds.
const DAY: u32 = 86_400;

/// A lease, as a peer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The leased subnet.
    pub subnet: Ipv4Network,
    /// Where its holder is reached.
    pub public_ip: Ipv4Addr,
    /// The Ethernet address of its holder's VTEP.
    pub vtep_mac: Option<String>,
}

impl Lease {
    /// The key of the lease.
    #[must_use]
    pub fn key(&self, prefix: &str) -> String {
        format!("{prefix}/subnets/{}-{}", self.subnet.network(), self.subnet.prefix())
    }

    /// The value, byte for byte as stock flannel writes it with the `vxlan` or `udp` backend.
    #[must_use]
    pub fn value(&self) -> String {
        let backend = self.vtep_mac.as_ref().map_or_else(String::new, |mac| {
            format!(r#","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}"#)
        });
        format!(r#"{{"PublicIP":"{}","PublicIPv6":null{backend}}}"#, self.public_ip)
    }

    /// Writes it.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn write(&self, etcd: &Etcd, prefix: &str) -> Result<()> {
        etcd.put_for(DAY, &self.key(prefix), &self.value()).map(drop)
    }

    fn read(entry: &Entry) -> Result<Self> {
        let (_, name) = entry.key.rsplit_once('/').context("no slash in the key")?;
        let (address, length) = name.rsplit_once('-').context("no hyphen in the key")?;
        let value: Value = serde_json::from_str(&entry.value)?;
        Ok(Self {
            subnet: Ipv4Network::new(address.parse()?, length.parse()?)?,
            public_ip: value["PublicIP"].as_str().context("no PublicIP")?.parse()?,
            vtep_mac: value["BackendData"]["VtepMAC"].as_str().map(str::to_owned),
        })
    }
}

/// The leases of a network, in the order of their keys.
///
/// # Errors
/// etcd cannot be reached, or holds something else.
pub fn list(etcd: &Etcd, prefix: &str) -> Result<Vec<Lease>> {
    let entries = etcd.list(&format!("{prefix}/subnets/"))?;
    entries.iter().map(|entry| Lease::read(entry).with_context(|| format!("no lease: {entry:?}"))).collect()
}
