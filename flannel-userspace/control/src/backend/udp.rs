//! IP packets in UDP: the payload of a datagram is the packet.

use flannel_common::Mac;
use flannel_common::wire::UdpStack;
use flannel_model::config::UdpConfig;
use flannel_model::object::Object;
use flannel_model::underlay::Underlay;
use flannel_net::device::{DeviceError, Segmenter};
use flannel_net::{Device, Netlink};
use ipnetwork::Ipv4Network;

use super::Hop;
use super::host_gw::direct;
use crate::peers::Peer;

/// The UDP backend. Its device only draws packets to the programs; one route brings those of the whole
/// network, and the programs' table of peers says where each goes.
#[derive(Clone, Debug)]
pub struct Udp {
    /// Its device.
    pub device: Device,
    /// What makes ordinary packets for peers that take no others.
    pub segmenter: Segmenter,
    /// UDP port of every host.
    pub port: u16,
    pub(super) direct_routing: bool,
    /// Interface index of the underlay.
    link: u32,
    mtu: u32,
}

impl Udp {
    pub(super) async fn prepare(
        config: UdpConfig,
        netlink: &Netlink,
        underlay: &Underlay,
    ) -> Result<Self, DeviceError> {
        let mtu = inner_mtu(underlay);
        let segmenter = netlink.ensure_segmenter(mtu).await?;
        Ok(Self::observe(config, underlay, netlink.ensure_udp_device(mtu).await?, segmenter))
    }

    /// With the device that is there, as it is.
    pub(super) const fn observe(
        config: UdpConfig,
        underlay: &Underlay,
        device: Device,
        segmenter: Segmenter,
    ) -> Self {
        let UdpConfig { port, direct_routing } = config;
        Self { device, segmenter, port, direct_routing, link: underlay.index, mtu: inner_mtu(underlay) }
    }

    /// Largest packet its device and its segmenter are to take.
    #[must_use]
    pub const fn wanted_mtu(&self) -> u32 {
        self.mtu
    }

    pub(super) fn move_to(&mut self, underlay: &Underlay) {
        (self.link, self.mtu) = (underlay.index, inner_mtu(underlay));
    }

    pub(super) async fn restore(&mut self, netlink: &Netlink) -> Result<bool, DeviceError> {
        let segmenter = std::mem::replace(&mut self.segmenter, netlink.ensure_segmenter(self.mtu).await?);
        let before = std::mem::replace(&mut self.device, netlink.ensure_udp_device(self.mtu).await?);
        Ok(before.index != self.device.index || before.mac != self.device.mac || segmenter != self.segmenter)
    }

    pub(super) fn network_route(&self, network: Ipv4Network) -> Object {
        Object::Route { subnet: network, via: None, device: self.device.index, onlink: false }
    }

    pub(super) fn objects(&self, peer: &Peer, hop: Hop) -> Vec<Object> {
        if self.direct_routing && hop == Hop::Link {
            return direct(peer, self.link);
        }
        vec![Object::Peer { subnet: peer.subnet, public_ip: peer.public_ip, mac: Mac::ZERO, direct: false }]
    }
}

/// What is left of the underlay's MTU for a pod.
const fn inner_mtu(underlay: &Underlay) -> u32 {
    underlay.mtu.saturating_sub(UdpStack::LEN)
}
