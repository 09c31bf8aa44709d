//! This host as it should be in the kernel, and as it is: the links it works with, and what its programs were built for.

use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::device::DeviceSpec;
use flannel_model::family::{Addresses, Family, PerFamily, Subnets};
use flannel_model::lease::Attributes;
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
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
    specs: PerFamily<DeviceSpec>,
}

impl<K: Kernel> Prepared<K> {
    /// Makes or adopts the backend's devices for the families that the underlay has addresses of. A VTEP that has to be
    /// made gets its address of `former_macs`, by which peers know it.
    ///
    /// # Errors
    /// The device cannot be made; the backend cannot work with this underlay.
    pub async fn new(
        mut kernel: K,
        backend: Box<dyn Backend>,
        underlay: Underlay,
        former_macs: PerFamily<Mac>,
    ) -> Result<Self, KernelError> {
        backend.check(&underlay)?;
        let (mut specs, mut devices) = (PerFamily::NONE, PerFamily::NONE);
        for (family, spec) in specs_of(&*backend, &underlay).iter() {
            // A device that is there has the address peers know; a new one is given that of the last one.
            let spec = match (former_macs.get(family), kernel.find_device(spec).await?) {
                (Some(mac), None) => spec.clone().with_mac(*mac),
                _ => spec.clone(),
            };
            let device = kernel.ensure_device(&spec).await?;
            specs.set(family, Some(spec.with_mac(device.mac)));
            devices.set(family, Some(device));
        }
        Ok(Self { kernel, backend, links: Links { underlay, devices }, specs })
    }

    /// What a peer becomes.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What the lease of this host says.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        attributes(self.backend(), &self.links)
    }

    /// The underlay and the device.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }
}

/// What the backend's devices over this underlay are to be like.
fn specs_of(backend: &dyn Backend, underlay: &Underlay) -> PerFamily<DeviceSpec> {
    let Addresses { v4, v6 } = underlay.addresses;
    PerFamily {
        v4: v4.and_then(|_| backend.device(underlay, Family::V4)),
        v6: v6.and_then(|_| backend.device(underlay, Family::V6)),
    }
}

/// This host, kept in the kernel.
#[derive(Debug)]
pub struct Node<K> {
    kernel: K,
    context: NodeContext,
    links: Links,
    specs: PerFamily<DeviceSpec>,
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
        networks: Subnets,
        subnets: Subnets,
    ) -> Result<Self, KernelError> {
        let Prepared { kernel, backend, links, specs } = prepared;
        let context = NodeContext { backend, networks, subnets };
        let mut node = Self { kernel, context, links, specs, built_for: None };
        node.ensure_addresses().await?;
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
        for (family, spec) in self.specs.iter() {
            self.links.devices.set(family, Some(self.kernel.ensure_device(spec).await?));
        }
        self.ensure_addresses().await?;
        self.build().await
    }

    fn follow(&mut self, underlay: Underlay) -> Result<(), KernelError> {
        if !underlay.is_same_way(&self.links.underlay) {
            let Underlay { name, addresses, mtu, .. } = &underlay;
            info!(interface = name, address = %addresses, mtu, "following the underlay");
            self.context.backend.check(&underlay)?;
            self.specify(&underlay);
        }
        self.links.underlay = underlay;
        Ok(())
    }

    /// Finds out what devices over `underlay` are to be like. The Ethernet address stays the published one.
    fn specify(&mut self, underlay: &Underlay) {
        let devices = &self.links.devices;
        let specs = specs_of(&*self.context.backend, underlay);
        self.specs = specs.map(|family, spec| match devices.get(family) {
            Some(device) => spec.with_mac(device.mac),
            None => spec,
        });
    }

    /// Has `backend`, of the kind of before, from the next [`Node::hold`] on.
    pub(super) fn configure(&mut self, backend: Box<dyn Backend>) {
        self.context.backend = backend;
        self.specify(&self.links.underlay.clone());
        self.built_for = None;
    }

    async fn ensure_addresses(&mut self) -> Result<(), KernelError> {
        let NodeContext { networks, subnets, .. } = self.context;
        for (family, device) in self.links.devices.iter() {
            if let (Some(network), Some(subnet)) = (networks.get(family), subnets.get(family)) {
                self.kernel.ensure_address(device, subnet.network(), network).await?;
            }
        }
        Ok(())
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
    pub(super) async fn hops(&self, addresses: &[IpAddr]) -> Result<Vec<Hop>, KernelError> {
        self.kernel.hops(addresses, &self.links.underlay).await
    }

    /// Everything of ours in the kernel, in order.
    pub(super) async fn list(&mut self) -> Result<Vec<Object>, KernelError> {
        self.kernel.list(&self.context.subnets).await
    }

    /// The objects that must exist whatever peers there are.
    pub(super) fn standing(&self) -> Vec<Object> {
        let NodeContext { backend, networks, .. } = &self.context;
        networks.iter().flat_map(|network| backend.standing(network, &self.links)).collect()
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
