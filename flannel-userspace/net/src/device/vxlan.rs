//! The vxlan device `flannel.<VNI>`, with stock flannel's name and parameters.

use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::device::{Device, VxlanSpec};
use rtnetlink::LinkVxlan;

use super::{DeviceError, is_conflict, set_ipv6};
use crate::link::{Kind, Link, Vxlan};
use crate::{Error, Netlink};

/// The kernel's limit of an interface's name, in bytes.
const NAME_LIMIT: usize = 15;

/// What cannot be changed of the device once it exists.
pub(super) fn parameters(spec: &VxlanSpec) -> Vxlan {
    Vxlan {
        vni: spec.vni.get(),
        port: spec.port,
        local: Some(spec.local),
        underlay: Some(spec.underlay),
        ..Vxlan::default()
    }
}

impl Netlink {
    /// The vxlan device, made if it is missing. One that fits is kept as it is, with its Ethernet address, addresses
    /// and routes; one whose parameters differ is replaced, because the kernel cannot change them.
    ///
    /// # Errors
    /// The name, the VNI or the port belongs to something else; the kernel refused.
    pub async fn ensure_vxlan(&self, spec: &VxlanSpec) -> Result<Device, DeviceError> {
        let name = spec.name();
        if name.len() > NAME_LIMIT {
            return Err(DeviceError::NameTooLong(name));
        }
        let existing = self.link(&name).await?;
        if let Some(link) = &existing {
            let Kind::Vxlan(is) = &link.kind else {
                return Err(DeviceError::Foreign {
                    remedy: format!("rename or delete it, or choose another VNI than {}", spec.vni),
                    name,
                    kind: link.kind.to_string(),
                    wanted: "a vxlan device",
                });
            };
            let differences = is.differences(&parameters(spec));
            if differences.is_empty() {
                return self.set_up_vxlan(link, spec).await;
            }
            tracing::warn!(device = name, ?differences, "replacing a vxlan device of other parameters");
            self.delete_link(link).await?;
        }
        let link = self.create_vxlan(&name, spec).await?;
        match self.set_up_vxlan(&link, spec).await {
            Err(error) => {
                // A half-made device would only hinder the next attempt.
                if let Err(leftover) = self.delete_link(&link).await {
                    tracing::warn!(device = name, %leftover, "a device that cannot be brought up is left");
                }
                Err(error)
            }
            device => device,
        }
    }

    async fn create_vxlan(&self, name: &str, spec: &VxlanSpec) -> Result<Link, DeviceError> {
        let builder = LinkVxlan::new(name, spec.vni.get())
            .dev(spec.underlay)
            .port(spec.port)
            .learning(false)
            .mtu(spec.mtu)
            .address(spec.mac.unwrap_or_else(random_mac).0.to_vec());
        let builder = match spec.local {
            IpAddr::V4(local) => builder.local(local),
            IpAddr::V6(local) => builder.local6(local),
        };
        if let Err(error) = self.add_link(name, builder.build()).await {
            return Err(self.creation_error(error, spec).await);
        }
        self.link(name).await?.ok_or_else(|| DeviceError::Vanished(name.to_owned()))
    }

    async fn set_up_vxlan(&self, link: &Link, spec: &VxlanSpec) -> Result<Device, DeviceError> {
        set_ipv6(&link.name, "accept_ra", "0")?;
        if let Some(mac) = spec.mac.filter(|mac| *mac != link.mac) {
            tracing::warn!(device = link.name, is = %link.mac, wanted = %mac, "restoring the Ethernet address");
            self.change_link(link, "set the Ethernet address", |change| change.address(mac.0.to_vec()))
                .await?;
        }
        match self.bring_up(link, spec.mtu).await {
            Err(DeviceError::Kernel(error)) if is_conflict(&error) => {
                Err(self.port_taken(&link.name, spec).await)
            }
            device => device,
        }
    }

    async fn creation_error(&self, error: Error, spec: &VxlanSpec) -> DeviceError {
        if !is_conflict(&error) {
            return error.into();
        }
        let same_network = |vxlan: &Vxlan| vxlan.vni == spec.vni.get() && vxlan.port == spec.port;
        match self.other_vxlan(&spec.name(), same_network).await {
            Some(culprit) => DeviceError::VniTaken { culprit, vni: spec.vni.get(), port: spec.port },
            None => error.into(),
        }
    }

    async fn port_taken(&self, name: &str, spec: &VxlanSpec) -> DeviceError {
        let culprit = self.other_vxlan(name, |vxlan| vxlan.port == spec.port).await;
        let unknown =
            || format!("a process that `ss --udp --listening --processes 'sport = {}'` shows", spec.port);
        DeviceError::PortTaken {
            name: name.to_owned(),
            port: spec.port,
            culprit: culprit.map_or_else(unknown, |culprit| format!("vxlan device {culprit}")),
        }
    }

    /// Name of a vxlan device other than `name` for which `is_it` holds.
    async fn other_vxlan(&self, name: &str, is_it: impl Fn(&Vxlan) -> bool) -> Option<String> {
        let links = self.links().await.ok()?;
        let found = links
            .into_iter()
            .find(|link| link.name != name && matches!(&link.kind, Kind::Vxlan(vxlan) if is_it(vxlan)));
        found.map(|link| link.name)
    }
}

/// A random unicast address from the locally administered range. It is given to the kernel, because programs such as
/// systemd-udevd change addresses that the kernel chose, and peers would continue to send to the old one.
fn random_mac() -> Mac {
    let mut mac: [u8; 6] = rand::random();
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::random_mac;

    #[test]
    fn random_mac_is_a_locally_administered_unicast_address() {
        for _ in 0..1000 {
            let mac = random_mac();
            assert!(mac.is_unicast());
            assert_eq!(mac.0[0] & 0x02, 0x02);
        }
    }
}
