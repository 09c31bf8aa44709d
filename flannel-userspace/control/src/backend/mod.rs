//! Backends: the objects of a peer in the kernel. Each backend is a file here, and a line in [`of`].

mod alloc;
mod cloud;
mod host_gw;
mod udp;
mod vxlan;

use std::fmt;
use std::net::IpAddr;

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::BackendConfig;
use flannel_model::device::{Device, DeviceSpec};
use flannel_model::family::{Family, PerFamily};
use flannel_model::lease::{Attributes, Data};
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::{Formats, VxlanFormat};
use ipnetwork::IpNetwork;

use crate::peers::Peer;

/// How packets travel between hosts: what a backend needs, and the objects it wants for each peer. It does nothing by
/// itself.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Checks that it can work over this underlay.
    ///
    /// # Errors
    /// It cannot.
    fn check(&self, _underlay: &Underlay) -> Result<(), Unsuitable> {
        Ok(())
    }

    /// What its device over this underlay for packets of `family` is to be like, if it has one.
    fn device(&self, _underlay: &Underlay, _family: Family) -> Option<DeviceSpec> {
        None
    }

    /// Largest packet of a pod, in bytes.
    fn mtu(&self, links: &Links) -> u32 {
        links.devices.values().map(|device| device.mtu).min().unwrap_or(links.underlay.mtu)
    }

    /// What the kernel's device of the former format of VXLAN is to be like, while that is served.
    fn former_device(&self, _underlay: &Underlay, _family: Family) -> Option<DeviceSpec> {
        None
    }

    /// The formats of VXLAN in which packets are taken.
    fn formats(&self) -> Option<Formats> {
        None
    }

    /// What the lease says of `device` to the backends of peers.
    fn lease_data(&self, _device: &Device) -> Option<Data> {
        None
    }

    /// The tunnel that packets go through, if they do.
    fn tunnel(&self) -> Option<Tunnel> {
        None
    }

    /// What must be in the kernel for `network` whichever peers there are.
    fn standing(&self, _network: IpNetwork, _links: &Links) -> Vec<Object> {
        Vec::new()
    }

    /// Whether [`Backend::objects`] depends on the hop.
    fn depends_on_hop(&self) -> bool;

    /// Whether packets of pods may cross the underlay as they are.
    fn is_plain(&self) -> bool {
        self.depends_on_hop()
    }

    /// The objects by which `peer` is reached, whose address is reached by `hop`; in any order.
    ///
    /// # Errors
    /// The backend has no path to the peer.
    fn objects(&self, peer: &Peer, hop: Hop, links: &Links) -> Result<Vec<Object>, Unreachable>;
}

/// The backend of that configuration.
#[must_use]
pub fn of(config: &BackendConfig) -> Box<dyn Backend> {
    between(config, Transition::default())
}

/// What is still under way from the configuration before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// Whether `DirectRouting` has changed: peers on the link may send by the tunnel or by a route, and this host sends by
    /// the tunnel, which every peer takes. A host that went over at once would lose packets of those that have not yet,
    /// or not any more.
    pub routing: bool,
    /// The format of VXLAN in which peers may still send, and those that have not gone over are sent to.
    pub former: Option<VxlanFormat>,
}

/// The backend of that configuration during a transition to it.
#[must_use]
pub fn between(config: &BackendConfig, transition: Transition) -> Box<dyn Backend> {
    let direct = match (transition.routing, config.direct_routing()) {
        (true, _) => Direct::Expected,
        (false, true) => Direct::On,
        (false, false) => Direct::Off,
    };
    match config {
        BackendConfig::Udp(config) => Box::new(udp::Udp::new(*config, direct)),
        BackendConfig::Vxlan(config) => Box::new(vxlan::Vxlan::new(*config, direct, transition.former)),
        BackendConfig::HostGw => Box::new(host_gw::HostGw),
        BackendConfig::Alloc => Box::new(alloc::Alloc),
        BackendConfig::Cloud(config) => Box::new(cloud::Cloud(config.provider())),
    }
}

/// Whether peers on the link of the underlay are reached by a plain route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    /// They are not, and what comes from them by a route is dropped by the guard.
    Off,
    /// They are not, and may send by a route themselves.
    Expected,
    /// They are.
    On,
}

impl Direct {
    /// Whether a peer that is reached by `hop` has a route.
    fn leads(self, hop: Hop) -> bool {
        self == Self::On && hop == Hop::Link
    }

    /// Whether one that is reached by the tunnel over `hop` may send by a route.
    fn is_expected(self, hop: Hop) -> bool {
        self == Self::Expected && hop == Hop::Link
    }
}

/// How packets look on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// IP packets in UDP: the payload of a datagram is the packet.
    Udp {
        /// UDP port of every host.
        port: u16,
    },
    /// Ethernet frames in VXLAN (RFC 7348).
    Vxlan {
        /// Network identifier.
        vni: Vni,
        /// UDP port of every host.
        port: u16,
    },
}

impl Tunnel {
    /// UDP port of every host.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Udp { port } | Self::Vxlan { port, .. } => port,
        }
    }

    /// VXLAN network identifier; zero without VXLAN.
    #[must_use]
    pub const fn vni(self) -> u32 {
        match self {
            Self::Udp { .. } => 0,
            Self::Vxlan { vni, .. } => vni.get(),
        }
    }
}

/// What the lease of a host with these links says.
#[must_use]
pub fn attributes(backend: &dyn Backend, links: &Links) -> Attributes {
    let data = |family| links.devices.get(family).and_then(|device| backend.lease_data(device));
    Attributes {
        public: links.underlay.public,
        backend_type: backend.kind().lease_type().map(str::to_owned),
        backend_data: PerFamily { v4: data(Family::V4), v6: data(Family::V6) },
    }
}

/// Formats of packets and Ethernet address of this host's VTEPs, if it has any.
#[must_use]
pub fn vteps(backend: &dyn Backend, links: &Links) -> PerFamily<(Formats, Mac)> {
    match backend.formats() {
        Some(formats) => links.devices.clone().map(|_, device| (formats, device.mac)),
        None => PerFamily::NONE,
    }
}

/// A backend cannot work over an underlay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// There is a translation of addresses.
    #[error(
        "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not \
         supported by host-gw backend: {public_ip} is announced, {address} is the address of {interface}; \
         drop --public-ip, choose the interface that has it with --iface, or use the vxlan backend"
    )]
    TranslatedAddress {
        /// The address announced.
        public_ip: IpAddr,
        /// The interface's address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// A peer to which the backend has no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// There is a router between.
    #[error(
        "peer {public_ip} is not on the link of {interface}, so {subnet} cannot be reached: the host-gw \
         backend needs all hosts on one link; use vxlan or udp with DirectRouting where they are not"
    )]
    NotOnLink {
        /// The peer's address.
        public_ip: IpAddr,
        /// The peer's subnet.
        subnet: IpNetwork,
        /// The underlay's interface.
        interface: String,
    },
    /// Its lease does not say which Ethernet address its VTEP has.
    #[error("the lease of {subnet} names no VtepMAC: is it held by a host with the vxlan backend?")]
    NoVtepMac {
        /// The peer's subnet.
        subnet: IpNetwork,
    },
    /// This host's own device is missing.
    #[error("there is no device by which {subnet} could be reached")]
    NoDevice {
        /// The peer's subnet.
        subnet: IpNetwork,
    },
}

/// The route to a peer on the link of the underlay's interface. The entry in the programs' table forwards nothing; it
/// makes the peer known to the guard and to readers of the table.
fn direct(peer: &Peer, format: Option<VxlanFormat>, underlay: &Underlay) -> Vec<Object> {
    let Peer { subnet, public_ip, vtep_mac, .. } = *peer;
    vec![
        Object::Peer { subnet, public_ip, mac: vtep_mac.unwrap_or(Mac::ZERO), direct: true, format },
        Object::Route { subnet, via: Some(public_ip), device: underlay.index, onlink: false },
    ]
}

#[cfg(test)]
mod tests;
