//! The names of flannel's devices.

use flannel_common::Vni;

/// Name of the UDP backend's device; stock flannel's TUN device is called the same.
pub const UDP_DEVICE: &str = "flannel0";

/// Name of the device of a VXLAN network.
#[must_use]
pub fn vxlan_device(vni: Vni) -> String {
    format!("flannel.{vni}")
}

/// Whether an interface of this name is one of flannel's: `flannel.1`, `flannel0`, `flannel-wg` and others.
#[must_use]
pub fn is_flannel(name: &str) -> bool {
    name.starts_with("flannel")
}
