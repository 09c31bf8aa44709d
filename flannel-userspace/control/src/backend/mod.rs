//! Backends: what a peer becomes in the kernel.

mod host_gw;
mod observe;
mod udp;
mod vxlan;

use std::net::Ipv4Addr;

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::BackendConfig;
use flannel_model::lease::Attributes;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Underlay};
use flannel_net::device::DeviceError;
use flannel_net::{Device, Netlink};
use ipnetwork::Ipv4Network;

use crate::peers::Peer;
pub use host_gw::HostGw;
pub use udp::Udp;
pub use vxlan::Vxlan;

/// A backend whose device, if it has one, exists.
#[derive(Clone, Debug)]
pub enum Backend {
    /// IP packets in UDP.
    Udp(Udp),
    /// Ethernet frames in VXLAN.
    Vxlan(Vxlan),
    /// Routes by way of the other hosts' addresses.
    HostGw(HostGw),
    /// A lease and nothing else.
    Alloc {
        /// MTU of the underlay.
        mtu: u32,
    },
}

/// A backend could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its device could not be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The backend cannot work behind a translation of addresses.
    #[error(
        "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not \
         supported by host-gw backend: {public_ip} is announced, {address} is the address of {interface}; \
         drop --public-ip, choose the interface that has it with --iface, or use the vxlan backend"
    )]
    TranslatedAddress {
        /// The address announced.
        public_ip: std::net::Ipv4Addr,
        /// The interface's address.
        address: std::net::Ipv4Addr,
        /// The interface.
        interface: String,
    },
}

/// A peer the backend has no way to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// There is a router between.
    #[error(
        "peer {public_ip} is not on the link of {interface}, so {subnet} cannot be reached: the host-gw \
         backend needs all hosts on one link; use vxlan or udp with DirectRouting where they are not"
    )]
    NotOnLink {
        /// The peer's address.
        public_ip: std::net::Ipv4Addr,
        /// The peer's subnet.
        subnet: Ipv4Network,
        /// The underlay's interface.
        interface: String,
    },
    /// Its lease does not say which Ethernet address its VTEP has.
    #[error("the lease of {subnet} names no VtepMAC: is it held by a host with the vxlan backend?")]
    NoVtepMac {
        /// The peer's subnet.
        subnet: Ipv4Network,
    },
}

impl Backend {
    /// Makes or adopts the backend's device. This comes before the lease, which publishes what the device
    /// is like. A VTEP that has to be made gets `former_mac`, the Ethernet address by which peers know it.
    ///
    /// # Errors
    /// The device cannot be made; the backend cannot work with this underlay.
    pub async fn prepare(
        config: &BackendConfig,
        netlink: &Netlink,
        underlay: &Underlay,
        former_mac: Option<Mac>,
    ) -> Result<Self, PrepareError> {
        Ok(match config {
            BackendConfig::Udp(config) => Self::Udp(Udp::prepare(*config, netlink, underlay).await?),
            BackendConfig::Vxlan(config) => {
                Self::Vxlan(Vxlan::prepare(config, netlink, underlay, former_mac).await?)
            }
            BackendConfig::HostGw => Self::HostGw(HostGw::prepare(underlay)?),
            BackendConfig::Alloc => Self::Alloc { mtu: underlay.mtu },
        })
    }

    /// Has the backend work over `underlay` from now on, which may have another address, MTU or index than the one
    /// it was prepared for. [`Backend::restore`] then makes the device fit.
    ///
    /// # Errors
    /// The backend cannot work with this underlay.
    pub fn move_to(&mut self, config: &BackendConfig, underlay: &Underlay) -> Result<(), PrepareError> {
        match (self, config) {
            (Self::Udp(udp), _) => udp.move_to(underlay),
            (Self::Vxlan(vxlan), BackendConfig::Vxlan(config)) => vxlan.move_to(config, underlay),
            (Self::HostGw(host_gw), _) => *host_gw = HostGw::prepare(underlay)?,
            (Self::Alloc { mtu }, _) => *mtu = underlay.mtu,
            (Self::Vxlan(_), _) => {}
        }
        Ok(())
    }

    /// Makes the device again as it was, with the Ethernet address that was published, if something deleted
    /// or changed it. Whether [`Backend::device`] is another one now; then [`Backend::activate`] is
    /// due again, and so is everything that knows the device by its index.
    ///
    /// # Errors
    /// The device cannot be made.
    pub async fn restore(&mut self, netlink: &Netlink) -> Result<bool, DeviceError> {
        match self {
            Self::Udp(udp) => udp.restore(netlink).await,
            Self::Vxlan(vxlan) => vxlan.restore(netlink).await,
            Self::HostGw(_) | Self::Alloc { .. } => Ok(false),
        }
    }

    /// The kind of the backend.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Udp(_) => Kind::Udp,
            Self::Vxlan(_) => Kind::Vxlan,
            Self::HostGw(_) => Kind::HostGw,
            Self::Alloc { .. } => Kind::Alloc,
        }
    }

    /// What the lease of a host with this public address says.
    #[must_use]
    pub fn attributes(&self, public_ip: Ipv4Addr) -> Attributes {
        let backend_data = match self {
            Self::Vxlan(vxlan) => Some((&vxlan.data()).into()),
            Self::Udp(_) | Self::HostGw(_) | Self::Alloc { .. } => None,
        };
        let backend_type = self.kind().lease_type().map(str::to_owned);
        Attributes { backend_type, backend_data, ..Attributes::new(public_ip) }
    }

    /// Network identifier and Ethernet address of this host's VTEP, if it has one.
    #[must_use]
    pub const fn vtep(&self) -> Option<(Vni, Mac)> {
        match self {
            Self::Vxlan(vxlan) => Some(vxlan.vtep()),
            Self::Udp(_) | Self::HostGw(_) | Self::Alloc { .. } => None,
        }
    }

    /// Largest packet of a pod, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        match self {
            Self::Udp(udp) => udp.device.mtu,
            Self::Vxlan(vxlan) => vxlan.device.mtu,
            Self::HostGw(host_gw) => host_gw.underlay.mtu,
            Self::Alloc { mtu } => *mtu,
        }
    }

    /// VXLAN network identifier (zero without VXLAN) and UDP port of the tunnel, if packets go through one.
    #[must_use]
    pub const fn tunnel(&self) -> Option<(u32, u16)> {
        match self {
            Self::Udp(udp) => Some((0, udp.port)),
            Self::Vxlan(vxlan) => Some(vxlan.tunnel()),
            Self::HostGw(_) | Self::Alloc { .. } => None,
        }
    }

    /// Flannel's own device.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Udp(udp) => Some(&udp.device),
            Self::Vxlan(vxlan) => Some(&vxlan.device),
            Self::HostGw(_) | Self::Alloc { .. } => None,
        }
    }

    /// Gives the device the first address of the leased subnet. This comes after the lease.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn activate(
        &self,
        netlink: &Netlink,
        subnet: Ipv4Network,
        network: Ipv4Network,
    ) -> Result<(), flannel_net::Error> {
        match self.device() {
            Some(device) => netlink.ensure_address(device, subnet.network(), network).await,
            None => Ok(()),
        }
    }

    /// What must be in the kernel whichever peers there are.
    #[must_use]
    pub fn standing(&self, network: Ipv4Network) -> Vec<Object> {
        match self {
            Self::Udp(udp) => vec![udp.network_route(network)],
            Self::Vxlan(_) | Self::HostGw(_) | Self::Alloc { .. } => Vec::new(),
        }
    }

    /// Whether [`Backend::objects`] depends on the hop.
    #[must_use]
    pub fn depends_on_hop(&self) -> bool {
        match self {
            Self::Udp(udp) => udp.direct_routing,
            Self::Vxlan(vxlan) => vxlan.direct_routing,
            Self::HostGw(_) => true,
            Self::Alloc { .. } => false,
        }
    }

    /// Everything by which `peer`, whose address is reached by `hop`, is reached; in any order.
    ///
    /// # Errors
    /// The backend has no way to the peer.
    pub fn objects(&self, peer: &Peer, hop: Hop) -> Result<Vec<Object>, Unreachable> {
        match self {
            Self::Udp(udp) => Ok(udp.objects(peer, hop)),
            Self::Vxlan(vxlan) => vxlan.objects(peer, hop),
            Self::HostGw(host_gw) => host_gw.objects(peer, hop),
            Self::Alloc { .. } => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
