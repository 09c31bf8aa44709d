//! What is in the kernel: in its own tables and in the maps of the programs.

use std::collections::BTreeSet;

use ipnetwork::Ipv4Network;
use thiserror::Error;

use crate::backend::Object;
use crate::datapath::{Datapath, DatapathError, PeerEntry};
use crate::kernel::{ObjectError, Objects};

/// The kernel's own tables and the maps, as one set of objects.
pub struct KernelState {
    objects: Objects,
    datapath: Datapath,
    /// Prefix length of every subnet of the network.
    subnet_len: u8,
}

/// Something could not be put, removed or listed.
#[derive(Debug, Error)]
pub enum StateError {
    /// In the kernel's own tables.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// In the maps.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A map holds the address of a subnet with an impossible length.
    #[error("the network's subnets have the impossible length {0}")]
    SubnetLen(u8),
}

impl KernelState {
    /// The objects of one network.
    #[must_use]
    pub const fn new(objects: Objects, datapath: Datapath, subnet_len: u8) -> Self {
        Self { objects, datapath, subnet_len }
    }

    /// Everything of ours.
    pub(super) async fn list(&mut self) -> Result<BTreeSet<Object>, StateError> {
        self.datapath.tables().correct_sources()?;
        let mut all = self.objects.list().await?;
        for (address, entry) in self.datapath.tables().peers()? {
            let subnet = Ipv4Network::new(address, self.subnet_len)
                .map_err(|_| StateError::SubnetLen(self.subnet_len))?;
            let PeerEntry { public_ip, vtep_mac: mac, direct } = entry;
            all.insert(Object::Peer { subnet, public_ip, mac, direct });
        }
        Ok(all)
    }

    /// Puts `object` there, in the place of one with the same key.
    pub(super) async fn put(&mut self, object: &Object) -> Result<(), StateError> {
        if let Object::Peer { subnet, public_ip, mac, direct } = object {
            let entry = PeerEntry { public_ip: *public_ip, vtep_mac: *mac, direct: *direct };
            return Ok(self.datapath.tables().put_peer(subnet.network(), entry)?);
        }
        Ok(self.objects.put(object).await?)
    }

    /// Removes exactly `object`, not one that has taken its place.
    pub(super) async fn remove(&mut self, object: &Object) -> Result<(), StateError> {
        if let Object::Peer { subnet, public_ip, mac, direct } = object {
            let entry = PeerEntry { public_ip: *public_ip, vtep_mac: *mac, direct: *direct };
            return Ok(self.datapath.tables().remove_peer(subnet.network(), entry)?);
        }
        Ok(self.objects.remove(object).await?)
    }
}
