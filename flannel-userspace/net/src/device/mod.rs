//! Flannel's own devices: made where they are missing, adopted as they are where they fit.

mod former;
pub mod segmenter;
mod udp;
mod vxlan;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use flannel_common::Vni;
use flannel_model::device::{Device, DeviceSpec, UDP_DEVICE, former_device, vxlan_device};
use flannel_model::family::Family;
use nix::errno::Errno;

use super::link::{Kind, Link};
use super::{Error, Netlink};

/// A device could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// A setting below /proc/sys could not be written.
    #[error(
        "cannot write {value} to {path}: in a container, /proc/sys must not be read-only (run it privileged); else write it \
         once, with: echo {value} >{path}"
    )]
    Setting {
        /// The file.
        path: String,
        /// What was to stand in it.
        value: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The name belongs to something else.
    #[error("interface {name} is a {kind}, not {wanted}: {remedy}")]
    Foreign {
        /// The name.
        name: String,
        /// What bears it.
        kind: String,
        /// What should.
        wanted: &'static str,
        /// What to do.
        remedy: String,
    },
    /// Another vxlan device has the VNI and port.
    #[error(
        "{culprit} already has VNI {vni} on UDP port {port}: delete it with `ip link delete {culprit}`, or \
         give this network another VNI or Port"
    )]
    VniTaken {
        /// Name of the other device.
        culprit: String,
        /// VXLAN network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
    },
    /// Something else listens on the UDP port.
    #[error(
        "cannot bring {name} up, UDP port {port} is in use by {culprit}: end that, or give this network another Port"
    )]
    PortTaken {
        /// Name of the device.
        name: String,
        /// UDP port.
        port: u16,
        /// Who has the port, as far as known.
        culprit: String,
    },
    /// The kernel is older than 6.2, and the device has to make room while it is up.
    #[error(
        "this kernel cannot give another name to the device {name} while it forwards, which takes Linux 6.2: a change of \
         Port alone takes a restart of flanneld here, or change VNI along with it"
    )]
    CannotStepAside {
        /// Name of the device.
        name: String,
        /// What the kernel said.
        source: Error,
    },
    /// The name is longer than the kernel allows.
    #[error("interface name {0} is longer than 15 characters: choose a VNI below 10000000")]
    NameTooLong(String),
    /// The device was gone as soon as it was made.
    #[error("interface {0} vanished while it was set up: does another program delete it?")]
    Vanished(String),
}

/// How the interface differs from the device of that spec.
#[must_use]
pub fn differences(link: &Link, spec: &DeviceSpec) -> Vec<String> {
    let mut differences = match (spec, &link.kind) {
        (DeviceSpec::Udp { .. }, _) => Vec::new(),
        (DeviceSpec::Vxlan(spec), Kind::Vxlan(is)) => is.differences(&vxlan::parameters(spec)),
        (DeviceSpec::Vxlan(_), other) => vec![format!("it is a {other}")],
    };
    if link.mtu != spec.mtu() {
        differences.push(format!("mtu is {}, wanted {}", link.mtu, spec.mtu()));
    }
    if !link.is_up() {
        differences.push("it is down".to_owned());
    }
    differences
}

impl Netlink {
    /// The device, made if it is missing, adopted as it is if it fits.
    ///
    /// # Errors
    /// A name, a VNI or a port belongs to something else; the kernel refused.
    pub async fn ensure_device(&self, spec: &DeviceSpec) -> Result<Device, DeviceError> {
        match spec {
            DeviceSpec::Udp { mtu } => {
                let segmenter = self.ensure_segmenter(*mtu).await?;
                Ok(Device { segmenter: Some(segmenter), ..self.ensure_udp_device(*mtu).await? })
            }
            DeviceSpec::Vxlan(spec) => self.ensure_vxlan(spec).await,
        }
    }

    /// The device as it is; `None` if it is missing. A segmenter's end that is missing has the index of no interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn find_device(&self, spec: &DeviceSpec) -> Result<Option<Device>, Error> {
        let Some(Link { name, index, mac, mtu, .. }) = self.link(&spec.name()).await? else {
            return Ok(None);
        };
        let segmenter = match spec {
            DeviceSpec::Udp { .. } => Some(self.find_segmenter().await?),
            DeviceSpec::Vxlan(_) => None,
        };
        Ok(Some(Device { name, index, mac, mtu, segmenter }))
    }

    /// Deletes the device called `name`, with its addresses, routes and neighbours, if it is one that
    /// [`Netlink::ensure_vxlan`] or [`Netlink::ensure_udp_device`] makes. Whether there was one.
    ///
    /// # Errors
    /// The kernel refused; the name belongs to something else.
    pub async fn remove_device(&self, name: &str) -> Result<bool, DeviceError> {
        let Some(link) = self.own_device(name).await? else { return Ok(false) };
        self.delete_link(&link).await?;
        Ok(true)
    }

    /// The device called `name`, if there is one.
    ///
    /// # Errors
    /// The kernel refused; the name belongs to something that flannel does not make.
    pub async fn own_device(&self, name: &str) -> Result<Option<Link>, DeviceError> {
        let Some(link) = self.link(name).await? else { return Ok(None) };
        let is_ours = match &link.kind {
            Kind::Vxlan(vxlan) => Vni::new(vxlan.vni).is_some_and(|vni| {
                let is_name = |family| name == vxlan_device(vni, family) || name == former_device(family);
                Family::ALL.into_iter().any(is_name)
            }),
            _ => name == UDP_DEVICE && self.is_udp_device(&link).await?,
        };
        if !is_ours {
            return Err(DeviceError::Foreign {
                name: name.to_owned(),
                kind: link.kind.to_string(),
                wanted: "a device made by flannel",
                remedy: format!("delete it with `ip link delete {name}` if it is of no use"),
            });
        }
        Ok(Some(link))
    }

    /// Corrects the MTU where it differs and brings the device up. The Ethernet address is read once the device is up,
    /// because until then other programs may still change it.
    async fn bring_up(&self, link: &Link, mtu: u32) -> Result<Device, DeviceError> {
        if link.mtu != mtu {
            self.change_link(link, "set the MTU", |change| change.mtu(mtu)).await?;
        }
        if !link.is_up() {
            self.change_link(link, "change the state", rtnetlink::LinkMessageBuilder::up).await?;
        }
        let vanished = || DeviceError::Vanished(link.name.clone());
        let Link { name, index, mac, mtu, .. } = self.link(&link.name).await?.ok_or_else(vanished)?;
        Ok(Device { name, index, mac, mtu, segmenter: None })
    }
}

/// Writes an IPv6 setting of an interface; without IPv6 there is nothing to set.
fn set_ipv6(name: &str, setting: &str, value: &'static str) -> Result<(), DeviceError> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
    match std::fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Containers often see /proc/sys read-only; a value that is already right need not be written.
        Err(_) if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) => Ok(()),
        // The device carries no IPv6, so none of these settings decides about a packet of the network.
        Err(error) if is_forbidden(&error) => {
            warn_once(&path, value, &error);
            Ok(())
        }
        written => written.map_err(|source| DeviceError::Setting { path, value, source }),
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// It is tried again and again.
fn warn_once(path: &str, value: &str, error: &io::Error) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let is_new = TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    if is_new {
        tracing::warn!(
            %error, "cannot set {path} to {value}, and goes on without: the device takes part in IPv6 of the host as \
             others do; set it on the host, or mount /proc/sys writable"
        );
    }
}

/// Whether the kernel said that something of this kind exists already.
fn is_conflict(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EEXIST | Errno::EADDRINUSE))
}

#[cfg(test)]
mod tests;
