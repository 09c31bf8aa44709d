//! A host with its bridge and its pods.

use anyhow::Result;

use super::{Host, Pod, SubnetFile};
use crate::traffic::Endpoint;

/// A host with pods, made as the subnet file of its daemon says.
#[derive(Clone, Debug)]
pub struct Node {
    /// The host.
    pub host: Host,
    /// Its subnet file.
    pub file: SubnetFile,
    /// The pods behind its bridge.
    pub pods: Vec<Pod>,
}

impl Node {
    /// Makes the bridge and that many pods behind it.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made.
    pub fn new(host: Host, file: SubnetFile, pods: u8) -> Result<Self> {
        host.add_bridge(&file)?;
        let pods = (1..=pods).map(|number| Pod::new(&host, &file, number)).collect::<Result<_>>()?;
        Ok(Self { host, file, pods })
    }

    /// The host as its pods and the pods of others reach it: by the bridge's address.
    #[must_use]
    pub fn gateway(&self) -> Endpoint {
        Endpoint { address: self.file.bridge, ..self.host.endpoint() }
    }

    /// Its pods as ends of traffic.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.pods.iter().map(|pod| &pod.endpoint)
    }
}
