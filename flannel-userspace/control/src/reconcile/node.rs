//! This host as it should be in the kernel, and as it is: the links it works with, and what its programs were built for.

use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::device::{Device, DeviceSpec};
use flannel_model::error::Chain;
use flannel_model::family::{Addresses, Family, PerFamily, Subnets};
use flannel_model::lease::Attributes;
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
use tracing::{info, warn};

use crate::backend::{Backend, Unreachable, attributes};
use crate::kernel::{Heard, Kernel, KernelError, NodeContext};
use crate::peers::Peer;

/// A backend whose device exists. This comes before the lease, which publishes what the device is like.
#[derive(Debug)]
pub struct Prepared<K> {
    kernel: K,
    backend: Box<dyn Backend>,
    links: Links,
    specs: Specs,
}

/// What devices are to be like.
#[derive(Clone, Debug)]
struct Specs {
    present: PerFamily<DeviceSpec>,
    /// Those of the former format of VXLAN.
    former: PerFamily<DeviceSpec>,
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
        let (mut specs, mut devices, mut formers) = (PerFamily::NONE, PerFamily::NONE, PerFamily::NONE);
        let Specs { present, former } = specs_of(&*backend, &underlay);
        for (family, spec) in present.iter() {
            let mut mac = former_macs.get(family).copied();
            if let Some(former) = former.get(family) {
                let kept = keep_former(&mut kernel, &with_mac(former.clone(), mac), spec).await;
                mac = kept.as_ref().map(|former| former.mac).or(mac);
                formers.set(family, kept);
            }
            // A device that is there has the address peers know; a new one is given that of the last one.
            let mac = if kernel.find_device(spec).await?.is_none() { mac } else { None };
            let device = kernel.ensure_device(&with_mac(spec.clone(), mac)).await?;
            specs.set(family, Some(spec.clone().with_mac(device.mac)));
            devices.set(family, Some(device));
        }
        let former = former.map(|family, spec| with_mac(spec, devices.get(family).map(|device| device.mac)));
        let specs = Specs { present: specs, former };
        Ok(Self { kernel, backend, links: Links { underlay, devices, former: formers }, specs })
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
fn specs_of(backend: &dyn Backend, underlay: &Underlay) -> Specs {
    let Addresses { v4, v6 } = underlay.addresses;
    let of = |spec: &dyn Fn(Family) -> Option<DeviceSpec>| PerFamily {
        v4: v4.and_then(|_| spec(Family::V4)),
        v6: v6.and_then(|_| spec(Family::V6)),
    };
    Specs {
        present: of(&|family| backend.device(underlay, family)),
        former: of(&|family| backend.former_device(underlay, family)),
    }
}

fn with_mac(spec: DeviceSpec, mac: Option<Mac>) -> DeviceSpec {
    mac.into_iter().fold(spec, DeviceSpec::with_mac)
}

/// The device of the former format, if it can be had: at a start there is nothing better than to go on without it.
async fn keep_former<K: Kernel>(kernel: &mut K, former: &DeviceSpec, present: &DeviceSpec) -> Option<Device> {
    let kept = kernel.keep_former(former, present).await;
    kept.inspect_err(|error| {
        let error = Chain(error);
        warn!(%error, "cannot keep the device of the former format of VXLAN; packets may be lost for a moment");
    })
    .ok()
}

/// This host, kept in the kernel.
#[derive(Debug)]
pub struct Node<K> {
    kernel: K,
    context: NodeContext,
    links: Links,
    specs: Specs,
    /// Devices of former formats of VXLAN, which are removed once no program knows them.
    leftovers: Vec<Device>,
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
        let mut node = Self { kernel, context, links, specs, leftovers: Vec::new(), built_for: None };
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
        let Specs { present, former } = &self.specs;
        for (family, spec) in present.iter() {
            if let Some(former) = former.get(family) {
                self.links.former.set(family, Some(self.kernel.keep_former(former, spec).await?));
            }
            self.links.devices.set(family, Some(self.kernel.ensure_device(spec).await?));
        }
        self.ensure_addresses().await?;
        self.build().await?;
        self.remove_leftovers().await
    }

    async fn remove_leftovers(&mut self) -> Result<(), KernelError> {
        // One that is in use again meanwhile is none.
        let Links { devices, former, .. } = &self.links;
        let used: Vec<u32> = devices.values().chain(former.values()).map(|device| device.index).collect();
        self.leftovers.retain(|leftover| !used.contains(&leftover.index));
        while let Some(leftover) = self.leftovers.last() {
            self.kernel.remove_former(leftover).await?;
            self.leftovers.pop();
        }
        Ok(())
    }

    /// Whether programs forward as the backend wants it, so that peers may be told.
    pub(super) const fn is_built(&self) -> bool {
        self.built_for.is_some()
    }

    /// Makes the devices of `next`, a backend of the kind of before, beside the present ones, which nobody is told of yet.
    pub(super) async fn prepare(&mut self, next: &dyn Backend) -> Result<(), KernelError> {
        let Specs { present, former } = self.specify_for(next, &self.links.underlay);
        for (family, spec) in present.iter() {
            self.kernel.claim(&spec.name()).await?;
            if let Some(former) = former.get(family) {
                self.kernel.keep_former(former, spec).await?;
            }
            self.kernel.ensure_device(spec).await?;
        }
        Ok(())
    }

    fn follow(&mut self, underlay: Underlay) -> Result<(), KernelError> {
        if !underlay.is_same_way(&self.links.underlay) {
            let Underlay { name, addresses, mtu, .. } = &underlay;
            info!(interface = name, address = %addresses, mtu, "following the underlay");
            self.context.backend.check(&underlay)?;
            self.specs = self.specify_for(&*self.context.backend, &underlay);
        }
        self.links.underlay = underlay;
        Ok(())
    }

    /// What devices of `backend` over `underlay` are to be like. The Ethernet address stays the published one.
    fn specify_for(&self, backend: &dyn Backend, underlay: &Underlay) -> Specs {
        let mac = |family| self.links.devices.get(family).map(|device| device.mac);
        let Specs { present, former } = specs_of(backend, underlay);
        Specs {
            present: present.map(|family, spec| with_mac(spec, mac(family))),
            former: former.map(|family, spec| with_mac(spec, mac(family))),
        }
    }

    /// Has `backend`, of the kind of before, from the next [`Node::hold`] on.
    pub(super) fn configure(&mut self, backend: Box<dyn Backend>) {
        self.specs = self.specify_for(&*backend, &self.links.underlay);
        self.context.backend = backend;
        let former = std::mem::replace(&mut self.links.former, PerFamily::NONE);
        if self.specs.former.is_empty() {
            self.leftovers.extend(former.values().cloned());
        }
        self.built_for = None;
    }

    async fn ensure_addresses(&mut self) -> Result<(), KernelError> {
        let NodeContext { networks, subnets, .. } = self.context;
        let Links { devices, former, .. } = &self.links;
        for (family, device) in devices.iter().chain(former.iter()) {
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

    /// When packets of each peer arrived last.
    pub(super) fn heard(&mut self) -> Result<Vec<Heard>, KernelError> {
        self.kernel.heard(&self.context.subnets)
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
