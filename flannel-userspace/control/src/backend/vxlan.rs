//! Ethernet frames in VXLAN.

use flannel_common::wire::VxlanStack;
use flannel_model::backend::Kind;
use flannel_model::config::backend::VxlanConfig;
use flannel_model::device::{Device, DeviceSpec, VxlanSpec};
use flannel_model::family::Family;
use flannel_model::lease::Data;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::{Formats, VxlanFormat};
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
    former: Option<VxlanFormat>,
}

impl Vxlan {
    pub(super) const fn new(config: VxlanConfig, direct: Direct, former: Option<VxlanFormat>) -> Self {
        Self { config, direct, former }
    }

    /// What a device of that format is to be like.
    fn spec(self, format: VxlanFormat, underlay: &Underlay, family: Family) -> Option<VxlanSpec> {
        let local = underlay.addresses.get(family)?;
        let VxlanFormat { vni, port } = format;
        let (mtu, underlay) = (self.inner_mtu(underlay, family), underlay.index);
        Some(VxlanSpec { vni, port, mtu, local, underlay, mac: None, steps_aside: false })
    }

    const fn both(self) -> Formats {
        Formats { present: self.config.format(), former: self.former }
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
        self.spec(self.config.format(), underlay, family).map(DeviceSpec::Vxlan)
    }

    fn former_device(&self, underlay: &Underlay, family: Family) -> Option<DeviceSpec> {
        let former = self.former?;
        let steps_aside = former.vni == self.config.vni;
        self.spec(former, underlay, family).map(|spec| DeviceSpec::Vxlan(VxlanSpec { steps_aside, ..spec }))
    }

    fn formats(&self) -> Option<Formats> {
        Some(self.both())
    }

    /// The order of the keys is stock flannel's, which ignores those it does not know. The port is named only while peers
    /// could take it to be another.
    fn lease_data(&self, device: &Device) -> Option<Data> {
        let (vni, mac) = (self.config.vni.get(), device.mac.to_string());
        let port = self.config.port;
        let data = match self.former {
            None => json!({ "VNI": vni, "VtepMAC": mac }),
            Some(_) => json!({ "VNI": vni, "VtepMAC": mac, "Port": port }),
        };
        Some((&data).into())
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
        let format = peer.format(self.both());
        if self.direct.leads(hop) {
            return Ok(direct(peer, Some(format), &links.underlay));
        }
        let Peer { subnet, public_ip, vtep_mac, .. } = *peer;
        let device = links.device_index(subnet.into()).ok_or(Unreachable::NoDevice { subnet })?;
        let mac = vtep_mac.ok_or(Unreachable::NoVtepMac { subnet })?;
        let gateway = subnet.network();
        // The kernel tells only what differs from the device's (`vxlan_fdb_info`).
        let vni = Some(format.vni).filter(|vni| *vni != self.config.vni);
        let port = Some(format.port).filter(|port| *port != self.config.port);
        Ok(vec![
            Object::Neighbour { device, ip: gateway, mac },
            Object::Fdb { device, mac, vtep: public_ip, vni, port },
            Object::Peer {
                subnet,
                public_ip,
                mac,
                direct: self.direct.is_expected(hop),
                format: Some(format),
            },
            Object::Route { subnet, via: Some(gateway), device, onlink: true },
        ])
    }
}
