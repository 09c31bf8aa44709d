//! The underlay: what carries the packets between hosts.

use flannel_common::Mac;
use ipnetwork::IpNetwork;

use crate::device::Device;
use crate::family::{Addresses, Family, PerFamily};

/// The interface that carries the tunnel, and how this host is known on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Largest outer packet, in bytes.
    pub mtu: u32,
    /// Ethernet address; zero where the interface has none.
    pub mac: Mac,
    /// Index of the VRF that it belongs to, in whose table routes are looked up.
    pub vrf: Option<u32>,
    /// The addresses from which outer packets are sent: the announced ones that are this host's own, or else the
    /// interface's.
    pub addresses: Addresses,
    /// The addresses peers are told to send to.
    pub public: Addresses,
    /// The networks the host is connected to, by all interfaces but flannel's own.
    pub networks: Vec<IpNetwork>,
}

impl Underlay {
    /// Whether packets take the same path as over `other`, whatever other networks the host is connected to.
    #[must_use]
    pub fn is_same_way(&self, other: &Self) -> bool {
        let networks = Vec::new();
        Self { networks: networks.clone(), ..self.clone() } == Self { networks, ..other.clone() }
    }
}

/// How an underlay address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// It is on the underlay interface's own link.
    Link,
    /// A router, another interface or nothing at all leads there.
    Routed,
}

/// The links that a backend works with: the underlay, and the devices over it, if the backend has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// What carries the tunnel.
    pub underlay: Underlay,
    /// Flannel's own devices, by the family of the outer packets: a vxlan device sends to addresses of one.
    pub devices: PerFamily<Device>,
    /// The kernel's devices of the former format of VXLAN, while that is served.
    pub former: PerFamily<Device>,
}

impl Links {
    /// Whether packets go by the same interfaces, addresses and sizes as over `other`.
    #[must_use]
    pub fn are_same_way(&self, other: &Self) -> bool {
        self.underlay.is_same_way(&other.underlay)
            && self.devices == other.devices
            && self.former == other.former
    }

    /// Interface index of the device of `family`.
    #[must_use]
    pub fn device_index(&self, family: Family) -> Option<u32> {
        self.devices.get(family).map(|device| device.index)
    }
}
