//! This host as it should be in the kernel, and as it is: the links it works with, and what its programs were built for.

use std::net::Ipv4Addr;

use flannel_common::Mac;
use flannel_model::device::DeviceSpec;
use flannel_model::lease::Attributes;
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
use ipnetwork::Ipv4Network;
use tracing::info;

use crate::backend::{Backend, Unreachable, attributes};
use crate::kernel::{Kernel, KernelError, NodeContext};
use crate::peers::Peer;

/// A backend whose device exists. This comes before the lease, which publishes what the device is like.
#[derive(Debug)]
pub struct Prepared<K> {
    kernel: K,
    backend: Box<dyn Backend>,
    links: Links,
    spec: Option<DeviceSpec>,
}

impl<K: Kernel> Prepared<K> {
    /// Makes or adopts the backend's device. A VTEP that has to be made gets `former_mac`, the Ethernet address by which
    /// peers know it.
    ///
    /// # Errors
    /// The device cannot be made; the backend cannot work with this underlay.
    pub async fn new(
        mut kernel: K,
        backend: Box<dyn Backend>,
        underlay: Underlay,
        former_mac: Option<Mac>,
    ) -> Result<Self, KernelError> {
        backend.check(&underlay)?;
        let Some(spec) = backend.device(&underlay) else {
            return Ok(Self { kernel, backend, links: Links { underlay, device: None }, spec: None });
        };
        // A device that is there has the address peers know; a new one is given that of the last one.
        let spec = match (former_mac, kernel.find_device(&spec).await?) {
            (Some(mac), None) => spec.with_mac(mac),
            _ => spec,
        };
        let device = kernel.ensure_device(&spec).await?;
        let spec = Some(spec.with_mac(device.mac));
        Ok(Self { kernel, backend, links: Links { underlay, device: Some(device) }, spec })
    }

    /// What a peer becomes.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What the lease of this host says.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        attributes(self.backend(), self.links.underlay.public_ip, self.links.device.as_ref())
    }

    /// The underlay and the device.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }
}

/// This host, kept in the kernel.
#[derive(Debug)]
pub struct Node<K> {
    kernel: K,
    context: NodeContext,
    links: Links,
    spec: Option<DeviceSpec>,
    /// The links that programs forward over. While they are others than `links`, programs are built again.
    built_for: Option<Links>,
}

impl<K: Kernel> Node<K> {
    /// Gives the device its address and has the programs in their places. What an earlier daemon left is taken
    /// over as it is.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn start(
        prepared: Prepared<K>,
        network: Ipv4Network,
        subnet: Ipv4Network,
    ) -> Result<Self, KernelError> {
        let Prepared { kernel, backend, links, spec } = prepared;
        let context = NodeContext { backend, network, subnet };
        let mut node = Self { kernel, context, links, spec, built_for: None };
        node.ensure_address().await?;
        node.build().await?;
        Ok(node)
    }

    pub(super) const fn context(&self) -> &NodeContext {
        &self.context
    }

    pub(super) const fn links(&self) -> &Links {
        &self.links
    }

    pub(super) const fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    pub(super) fn is_whole(&self) -> bool {
        self.kernel.is_whole()
    }

    pub(super) async fn change(&mut self) -> Change {
        self.kernel.change().await
    }

    /// Makes device, address and programs what they should be over the underlay as it is now. Whatever of that fails is
    /// due again with the next call: nothing is remembered as done that is not.
    pub(super) async fn hold(&mut self) -> Result<(), KernelError> {
        let underlay = self.kernel.underlay(Some(&self.links.underlay)).await?;
        self.follow(underlay)?;
        if let Some(spec) = &self.spec {
            self.links.device = Some(self.kernel.ensure_device(spec).await?);
        }
        self.ensure_address().await?;
        self.build().await
    }

    fn follow(&mut self, underlay: Underlay) -> Result<(), KernelError> {
        if !underlay.is_same_way(&self.links.underlay) {
            let Underlay { name, address, mtu, .. } = &underlay;
            info!(interface = name, %address, mtu, "following the underlay");
            self.context.backend.check(&underlay)?;
            // The Ethernet address stays the published one.
            let spec = self.context.backend.device(&underlay);
            self.spec = match &self.links.device {
                Some(device) => spec.map(|spec| spec.with_mac(device.mac)),
                None => spec,
            };
        }
        self.links.underlay = underlay;
        Ok(())
    }

    async fn ensure_address(&mut self) -> Result<(), KernelError> {
        let NodeContext { network, subnet, .. } = self.context;
        match &self.links.device {
            Some(device) => self.kernel.ensure_address(device, subnet.network(), network).await,
            None => Ok(()),
        }
    }

    async fn build(&mut self) -> Result<(), KernelError> {
        if self.built_for.as_ref().is_some_and(|built| built.are_same_way(&self.links)) {
            self.kernel.hold()?;
        } else {
            self.kernel.build(&self.context, &self.links)?;
            self.built_for = Some(self.links.clone());
        }
        self.kernel.find_pods().await
    }

    /// How each of `addresses` is reached.
    pub(super) async fn hops(&self, addresses: &[Ipv4Addr]) -> Result<Vec<Hop>, KernelError> {
        self.kernel.hops(addresses, &self.links.underlay).await
    }

    /// Everything of ours in the kernel, in order.
    pub(super) async fn list(&mut self) -> Result<Vec<Object>, KernelError> {
        self.kernel.list(self.context.subnet.prefix()).await
    }

    /// What must be in the kernel whichever peers there are.
    pub(super) fn standing(&self) -> Vec<Object> {
        self.context.backend.standing(self.context.network, &self.links)
    }

    /// Everything by which `peer`, whose address is reached by `hop`, is reached.
    pub(super) fn objects(&self, peer: &Peer, hop: Hop) -> Result<Vec<Object>, Unreachable> {
        let mut objects = self.context.backend.objects(peer, hop, &self.links)?;
        if !self.kernel.has_programs() {
            objects.retain(|object| !matches!(object, Object::Peer { .. }));
        }
        Ok(objects)
    }
}
