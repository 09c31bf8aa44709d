//! The kernel's device of a former format of VXLAN. It takes the packets of peers that still use that format, where the
//! kernel has to decapsulate them; nothing leaves by it.

use std::io;

use flannel_model::device::{Device, VxlanSpec};
use nix::errno::Errno;

use super::{DeviceError, vxlan};
use crate::Netlink;
use crate::link::{Kind, Link};

/// Name of a device that changes places with another one.
const IN_BETWEEN: &str = "flannel-between";

impl Netlink {
    /// The device of the `former` format, made if it is missing. If that of the `present` one has the same name, the one
    /// that bears the name gives it up: packets go on by it, because everything knows it by its index.
    ///
    /// # Errors
    /// The kernel cannot give another name to a device that is up; otherwise as with [`Netlink::ensure_vxlan`].
    pub async fn keep_former(&self, former: &VxlanSpec, present: &VxlanSpec) -> Result<Device, DeviceError> {
        if former.steps_aside {
            self.make_room(former, &former.name(), &present.name()).await?;
        }
        self.ensure_vxlan(former).await
    }

    /// Gives the device of the `former` format, if it is called `taken`, the name `own`.
    async fn make_room(&self, former: &VxlanSpec, own: &str, taken: &str) -> Result<(), DeviceError> {
        if let Some(interrupted) = self.link(IN_BETWEEN).await?
            && self.link(taken).await?.is_none()
        {
            self.rename(&interrupted, taken).await?;
        }
        let Some(link) = self.link(taken).await?.filter(|link| is_of(link, former)) else { return Ok(()) };
        let Some(other) = self.link(own).await? else { return self.rename(&link, own).await };
        // The configuration was changed back: each has the other's name.
        self.rename(&other, IN_BETWEEN).await?;
        self.rename(&link, own).await?;
        self.rename(&other, taken).await
    }

    /// By index, whatever the interface is called by now. Before Linux 6.2 only one that is down can be renamed
    /// (`dev_change_name`).
    async fn rename(&self, link: &Link, name: &str) -> Result<(), DeviceError> {
        let renamed = self.change_link(link, "change the name", |change| change.name(name.to_owned())).await;
        renamed.map_err(|source| match source.errno() {
            Some(Errno::EBUSY) => DeviceError::CannotStepAside { name: link.name.clone(), source },
            _ => source.into(),
        })
    }

    /// Where the kernel decapsulates by itself, what comes by this device does not come from where the route back leads:
    /// a strict rp_filter would drop it.
    ///
    /// # Errors
    /// The setting cannot be written.
    pub fn accept_ways_back_elsewhere(&self, name: &str) -> Result<(), DeviceError> {
        const LOOSE: &str = "2";
        let setting = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        let is_strict = |name| std::fs::read_to_string(setting(name)).is_ok_and(|value| value.trim() == "1");
        if !is_strict("all") && !is_strict(name) {
            return Ok(());
        }
        let path = setting(name);
        let written = std::fs::write(&path, LOOSE);
        written.map_err(|source: io::Error| DeviceError::Setting { path, value: LOOSE, source })
    }
}

fn is_of(link: &Link, spec: &VxlanSpec) -> bool {
    matches!(&link.kind, Kind::Vxlan(is) if is.differences(&vxlan::parameters(spec)).is_empty())
}
