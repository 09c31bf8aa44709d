//! Ethernet frames in VXLAN.

use flannel_common::wire::VxlanStack;
use flannel_model::backend::Kind;
use flannel_model::config::backend::VxlanConfig;
use flannel_model::device::{Device, DeviceSpec, VxlanSpec};
use flannel_model::family::Family;
use flannel_model::lease::Data;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};
use serde_json::json;

use super::{Backend, Direct, Tunnel, Unreachable, direct};
use crate::peers::Peer;

/// By how many bytes the header of IPv6 is longer than that of IPv4.
const LONGER_HEADER: u32 = 20;

/// The VXLAN backend. Its device, and what stock flannel would put there for each peer, forward without any program;
/// the programs do the same faster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vxlan {
    config: VxlanConfig,
    direct: Direct,
}

impl Vxlan {
    pub(super) const fn new(config: VxlanConfig, direct: Direct) -> Self {
        Self { config, direct }
    }

    /// What is left of the underlay's MTU for a pod. A configured one can make it smaller, but a link does not
    /// carry more for being told so.
    fn inner_mtu(self, underlay: &Underlay, family: Family) -> u32 {
        let outer = self.config.mtu.unwrap_or(underlay.mtu).min(underlay.mtu);
        if let Some(configured) = self.config.mtu.filter(|configured| *configured > underlay.mtu) {
            tracing::warn!(
                configured,
                interface = underlay.name,
                mtu = underlay.mtu,
                "the configured MTU is more than the interface carries, using the interface's"
            );
        }
        let headers = match family {
            Family::V4 => VxlanStack::LEN,
            Family::V6 => VxlanStack::LEN + LONGER_HEADER,
        };
        outer.saturating_sub(headers)
    }
}

impl Backend for Vxlan {
    fn kind(&self) -> Kind {
        Kind::Vxlan
    }

    fn device(&self, underlay: &Underlay, family: Family) -> Option<DeviceSpec> {
        let local = underlay.addresses.get(family)?;
        Some(DeviceSpec::Vxlan(VxlanSpec {
            vni: self.config.vni,
            port: self.config.port,
            mtu: self.inner_mtu(underlay, family),
            local,
            underlay: underlay.index,
            mac: None,
        }))
    }

    /// The order of the keys is stock flannel's.
    fn lease_data(&self, device: &Device) -> Option<Data> {
        Some((&json!({ "VNI": self.config.vni.get(), "VtepMAC": device.mac.to_string() })).into())
    }

    fn tunnel(&self) -> Option<Tunnel> {
        Some(Tunnel::Vxlan { vni: self.config.vni, port: self.config.port })
    }

    fn depends_on_hop(&self) -> bool {
        self.direct != Direct::Off
    }

    /// As by stock flannel, the gateway of a peer's subnet is the subnet's first address, whose Ethernet
    /// address is the peer's VTEP.
    fn objects(&self, peer: &Peer, hop: Hop, links: &Links) -> Result<Vec<Object>, Unreachable> {
        if self.direct.leads(hop) {
            return Ok(direct(peer, &links.underlay));
        }
        let Peer { subnet, public_ip, vtep_mac } = *peer;
        let device = links.device_index(subnet.into()).ok_or(Unreachable::NoDevice { subnet })?;
        let mac = vtep_mac.ok_or(Unreachable::NoVtepMac { subnet })?;
        let gateway = subnet.network();
        Ok(vec![
            Object::Neighbour { device, ip: gateway, mac },
            Object::Fdb { device, mac, vtep: public_ip },
            Object::Peer { subnet, public_ip, mac, direct: self.direct.is_expected(hop) },
            Object::Route { subnet, via: Some(gateway), device, onlink: true },
        ])
    }
}
