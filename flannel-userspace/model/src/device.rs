//! Flannel's own devices: their names, what they are to be like, and what they are.

use std::net::IpAddr;

use flannel_common::{Mac, Vni};

use crate::family::Family;

/// Name of the UDP backend's device; stock flannel's TUN device is called the same.
pub const UDP_DEVICE: &str = "flannel0";

/// Name of the device of a VXLAN network whose outer packets are of that family.
#[must_use]
pub fn vxlan_device(vni: Vni, family: Family) -> String {
    match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    }
}

/// Whether an interface of this name is one of flannel's: `flannel.1`, `flannel0`, `flannel-wg` and others.
#[must_use]
pub fn is_flannel(name: &str) -> bool {
    name.starts_with("flannel")
}

/// What a device is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The UDP backend's, which draws packets to the programs, with a segmenter.
    Udp {
        /// Largest inner packet, in bytes.
        mtu: u32,
    },
    /// The vxlan device.
    Vxlan(VxlanSpec),
}

impl DeviceSpec {
    /// Name of the device.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Udp { .. } => UDP_DEVICE.to_owned(),
            Self::Vxlan(spec) => spec.name(),
        }
    }

    /// Largest inner packet, in bytes.
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        match self {
            Self::Udp { mtu } => *mtu,
            Self::Vxlan(spec) => spec.mtu,
        }
    }

    /// The same, for a device that keeps the Ethernet address that peers know.
    #[must_use]
    pub fn with_mac(self, mac: Mac) -> Self {
        match self {
            Self::Udp { .. } => self,
            Self::Vxlan(spec) => Self::Vxlan(VxlanSpec { mac: Some(mac), ..spec }),
        }
    }
}

/// Name of the device of a former format of VXLAN that has the identifier of the present one.
#[must_use]
pub const fn former_device(family: Family) -> &'static str {
    match family {
        Family::V4 => "flannel-former",
        Family::V6 => "flannel-v6-fmr",
    }
}

/// What a vxlan device is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// UDP port of every host.
    pub port: u16,
    /// Largest inner packet, in bytes.
    pub mtu: u32,
    /// Outer source address.
    pub local: IpAddr,
    /// Index of the underlay's interface.
    pub underlay: u32,
    /// Ethernet address it must have; without one, an existing device keeps its own, and a new one gets a random one.
    pub mac: Option<Mac>,
    /// Whether it is that of a former format whose identifier is the present one's, too.
    pub steps_aside: bool,
}

impl VxlanSpec {
    /// Name of the device.
    #[must_use]
    pub fn name(&self) -> String {
        match self.steps_aside {
            true => former_device(self.local.into()).to_owned(),
            false => vxlan_device(self.vni, self.local.into()),
        }
    }
}

/// A device of flannel's, up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Ethernet address.
    pub mac: Mac,
    /// Largest inner packet, in bytes.
    pub mtu: u32,
    /// What makes ordinary packets for peers that take no others; only with the UDP backend.
    pub segmenter: Option<Segmenter>,
}

/// The segmenter of the UDP backend, up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmenter {
    /// Interface index of the end where packets go in.
    pub entrance: u32,
    /// Interface index of the end where they come out.
    pub exit: u32,
}
