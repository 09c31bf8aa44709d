//! What is taken away where no maps tell what there is: what has the names, addresses and marks that flanneld gives.

use std::collections::BTreeSet;

use flannel_control::remembered::Remembered;
use flannel_control::subnet_file::Previous;
use flannel_model::config::{BackendConfig, NetworkConfig};
use flannel_model::family::{Family, PerFamily, Subnets};
use flannel_model::object::Object;
use flannel_net::device::DeviceError;
use flannel_net::{Netlink, Objects};
use ipnetwork::IpNetwork;

use super::DownError;
use super::found::Leftover;

/// What is known of a network by its files.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Routes into these that bear flannel's mark are its own.
    networks: Vec<IpNetwork>,
    /// This host's subnets.
    pub(super) own: Subnets,
    /// Flannel's devices.
    devices: BTreeSet<String>,
}

impl Named {
    /// By the state file, which only flanneld writes, and by the subnet file, which stock flannel writes, too.
    pub(super) fn of(state: Option<&Remembered>, file: Option<&Previous>) -> Self {
        let config = state.and_then(|state| NetworkConfig::parse(&state.config).ok());
        let networks = config.as_ref().map(NetworkConfig::networks).unwrap_or_default();
        let backend = config.and_then(|config| BackendConfig::parse(&config.backend).ok());
        let device = |family| backend.as_ref()?.device_name(family);
        let of_file = file.map(|file| file.networks.iter().copied().map(IpNetwork::V4)).into_iter().flatten();
        Self {
            networks: networks.iter().chain(of_file).collect(),
            own: state
                .map(|state| state.own.subnets)
                .or_else(|| file.map(Previous::previous_subnets))
                .unwrap_or_default(),
            devices: Family::ALL.into_iter().filter_map(device).collect(),
        }
    }

    /// Whether anything is known.
    pub(super) const fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// What of it is there.
    pub(super) async fn find(mut self, netlink: &Netlink) -> Result<Vec<Leftover>, DownError> {
        let is_own_route = |object: &Object| match object {
            Object::Route { subnet, .. } => self.networks.iter().any(|network| network.contains(subnet.ip())),
            _ => false,
        };
        let objects = Objects::new(netlink.clone(), PerFamily::only_v4(None)).list().await?;
        let mut things: Vec<Leftover> =
            objects.into_iter().filter(is_own_route).map(Leftover::Route).collect();
        for subnet in self.own.iter() {
            if netlink.has_blackhole(subnet).await? {
                things.push(Leftover::Blackhole(subnet));
            }
        }
        self.find_devices(netlink).await?;
        for device in self.devices {
            if is_own(netlink.own_device(&device).await)? {
                things.push(Leftover::Device(device));
            }
        }
        if is_own(netlink.own_segmenter().await)? {
            things.push(Leftover::Segmenter);
        }
        Ok(things)
    }

    /// Adds the devices that have the address of flannel's: the first one of the own subnet, alone.
    async fn find_devices(&mut self, netlink: &Netlink) -> Result<(), DownError> {
        let Some(subnet) = self.own.v4 else { return Ok(()) };
        for address in netlink.addresses(Family::V4).await? {
            let is_own = address.network.ip() == subnet.network() && address.network.prefix() == 32;
            if is_own && let Some(link) = netlink.link_by_index(address.link).await? {
                self.devices.extend(Some(link.name).filter(|name| name.starts_with("flannel")));
            }
        }
        Ok(())
    }
}

/// What only has the name of a device is somebody's.
fn is_own<T>(device: Result<Option<T>, DeviceError>) -> Result<bool, DeviceError> {
    match device {
        Ok(device) => Ok(device.is_some()),
        Err(DeviceError::Foreign { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
