//! IP packets in UDP: the payload of a datagram is the packet.

use flannel_common::Mac;
use flannel_common::wire::UdpStack;
use flannel_model::backend::Kind;
use flannel_model::config::UdpConfig;
use flannel_model::device::DeviceSpec;
use flannel_model::family::Family;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};
use ipnetwork::IpNetwork;

use super::{Backend, Direct, Tunnel, Unreachable, direct};
use crate::peers::Peer;

/// The UDP backend. Its device only draws packets to the programs; one route brings those of the whole
/// network, and the programs' table of peers says where each goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Udp {
    config: UdpConfig,
    direct: Direct,
}

impl Udp {
    pub(super) const fn new(config: UdpConfig, direct: Direct) -> Self {
        Self { config, direct }
    }
}

impl Backend for Udp {
    fn kind(&self) -> Kind {
        Kind::Udp
    }

    /// Stock flannel's proxy knows no IPv6.
    fn device(&self, underlay: &Underlay, family: Family) -> Option<DeviceSpec> {
        let mtu = underlay.mtu.saturating_sub(UdpStack::LEN);
        (family == Family::V4).then_some(DeviceSpec::Udp { mtu })
    }

    fn tunnel(&self) -> Option<Tunnel> {
        Some(Tunnel::Udp { port: self.config.port })
    }

    fn standing(&self, network: IpNetwork, links: &Links) -> Vec<Object> {
        let route = |device| Object::Route { subnet: network, via: None, device, onlink: false };
        links.device_index(network.into()).map(route).into_iter().collect()
    }

    fn depends_on_hop(&self) -> bool {
        self.direct != Direct::Off
    }

    fn objects(&self, peer: &Peer, hop: Hop, links: &Links) -> Result<Vec<Object>, Unreachable> {
        if self.direct.leads(hop) {
            return Ok(direct(peer, None, &links.underlay));
        }
        let Peer { subnet, public_ip, .. } = *peer;
        let direct = self.direct.is_expected(hop);
        Ok(vec![Object::Peer { subnet, public_ip, mac: Mac::ZERO, direct, format: None }])
    }
}
