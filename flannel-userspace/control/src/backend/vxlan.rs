//! Ethernet frames in VXLAN.

use flannel_common::wire::VxlanStack;
use flannel_common::{Mac, Vni};
use flannel_model::config::backend::VxlanConfig;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Underlay};
use flannel_net::device::{DeviceError, VxlanSpec};
use flannel_net::link::{Kind, Link};
use flannel_net::{Device, Netlink};
use serde_json::{Value, json};

use super::Unreachable;
use super::host_gw::direct;
use crate::peers::Peer;

/// The VXLAN backend. Its device, and what stock flannel would put there for each peer, forward without
/// any program; the programs are a shorter way to the same end.
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// Its device.
    pub device: Device,
    pub(super) direct_routing: bool,
    spec: VxlanSpec,
}

impl Vxlan {
    pub(super) async fn prepare(
        config: &VxlanConfig,
        netlink: &Netlink,
        underlay: &Underlay,
        former_mac: Option<Mac>,
    ) -> Result<Self, DeviceError> {
        let spec = spec_of(config, underlay);
        // A device that is there has the address peers know; a new one is given that of the last one.
        let is_there = netlink.link(&spec.name()).await?.is_some();
        let spec = VxlanSpec { mac: former_mac.filter(|_| !is_there), ..spec };
        let device = netlink.ensure_vxlan(&spec).await?;
        let spec = VxlanSpec { mac: Some(device.mac), ..spec };
        Ok(Self { device, direct_routing: config.direct_routing, spec })
    }

    /// With the device that is there, as it is.
    pub(super) fn observe(config: &VxlanConfig, underlay: &Underlay, device: Device) -> Self {
        let spec = VxlanSpec { mac: Some(device.mac), ..spec_of(config, underlay) };
        Self { device, direct_routing: config.direct_routing, spec }
    }

    /// In what the interface is not as it should be.
    pub(super) fn differences(&self, link: &Link) -> Vec<String> {
        match &link.kind {
            Kind::Vxlan(vxlan) => vxlan.differences(&self.spec.parameters()),
            other => vec![format!("it is a {other}")],
        }
    }

    pub(super) const fn wanted_mtu(&self) -> u32 {
        self.spec.mtu
    }

    /// The Ethernet address stays the published one.
    pub(super) fn move_to(&mut self, config: &VxlanConfig, underlay: &Underlay) {
        self.spec = VxlanSpec { mac: self.spec.mac, ..spec_of(config, underlay) };
    }

    pub(super) async fn restore(&mut self, netlink: &Netlink) -> Result<bool, DeviceError> {
        let before = std::mem::replace(&mut self.device, netlink.ensure_vxlan(&self.spec).await?);
        Ok(before.index != self.device.index || before.mac != self.device.mac)
    }

    pub(super) const fn tunnel(&self) -> (u32, u16) {
        (self.spec.vni.get(), self.spec.port)
    }

    /// Network identifier and Ethernet address of this host's VTEP.
    #[must_use]
    pub const fn vtep(&self) -> (Vni, Mac) {
        (self.spec.vni, self.device.mac)
    }

    /// `BackendData` of the lease; the order of the keys is stock flannel's.
    pub(super) fn data(&self) -> Value {
        json!({ "VNI": self.spec.vni.get(), "VtepMAC": self.device.mac.to_string() })
    }

    /// As by stock flannel, the gateway of a peer's subnet is the subnet's first address, whose Ethernet
    /// address is the peer's VTEP.
    pub(super) fn objects(&self, peer: &Peer, hop: Hop) -> Result<Vec<Object>, Unreachable> {
        if self.direct_routing && hop == Hop::Link {
            return Ok(direct(peer, self.spec.underlay));
        }
        let Peer { subnet, public_ip, vtep_mac } = *peer;
        let mac = vtep_mac.ok_or(Unreachable::NoVtepMac { subnet })?;
        let (device, gateway) = (self.device.index, subnet.network());
        Ok(vec![
            Object::Neighbour { device, ip: gateway, mac },
            Object::Fdb { device, mac, vtep: public_ip },
            Object::Peer { subnet, public_ip, mac, direct: false },
            Object::Route { subnet, via: Some(gateway), device, onlink: true },
        ])
    }
}

fn spec_of(config: &VxlanConfig, underlay: &Underlay) -> VxlanSpec {
    VxlanSpec {
        vni: config.vni,
        port: config.port,
        mtu: inner_mtu(config.mtu, underlay),
        local: underlay.address,
        underlay: underlay.index,
        mac: None,
    }
}

/// What is left of the underlay's MTU for a pod. A configured one can make it smaller, but a link does not
/// carry more for being told so.
fn inner_mtu(configured: Option<u32>, underlay: &Underlay) -> u32 {
    let outer = configured.unwrap_or(underlay.mtu).min(underlay.mtu);
    if let Some(configured) = configured.filter(|configured| *configured > underlay.mtu) {
        tracing::warn!(
            configured,
            interface = underlay.name,
            mtu = underlay.mtu,
            "the configured MTU is more than the interface carries, using the interface's"
        );
    }
    outer.saturating_sub(VxlanStack::LEN)
}
