//! A backend looked at from outside: nothing is made, nothing is changed.

use flannel_model::config::BackendConfig;
use flannel_model::underlay::Underlay;
use flannel_net::device::Segmenter;
use flannel_net::device::segmenter::{ENTRANCE, EXIT};
use flannel_net::link::Link;
use flannel_net::{Device, Netlink};

use super::{Backend, HostGw, Udp, Vxlan};

impl Backend {
    /// The backend of that configuration over the device that is there; nothing where it is missing.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn observe(
        config: &BackendConfig,
        netlink: &Netlink,
        underlay: &Underlay,
    ) -> Result<Option<Self>, flannel_net::Error> {
        let device = match config.device_name() {
            Some(name) => match netlink.link(&name).await? {
                Some(Link { name, index, mac, mtu, .. }) => Some(Device { name, index, mac, mtu }),
                None => return Ok(None),
            },
            None => None,
        };
        Ok(match (config, device) {
            (BackendConfig::Udp(config), Some(device)) => {
                // An end that is missing has the index of no interface.
                let index = async |name| Ok(netlink.link(name).await?.map_or(0, |link| link.index));
                let segmenter = Segmenter { entrance: index(ENTRANCE).await?, exit: index(EXIT).await? };
                Some(Self::Udp(Udp::observe(*config, underlay, device, segmenter)))
            }
            (BackendConfig::Vxlan(config), Some(device)) => {
                Some(Self::Vxlan(Vxlan::observe(config, underlay, device)))
            }
            (BackendConfig::HostGw, _) => Some(Self::HostGw(HostGw { underlay: underlay.clone() })),
            (BackendConfig::Alloc, _) => Some(Self::Alloc { mtu: underlay.mtu }),
            (BackendConfig::Udp(_) | BackendConfig::Vxlan(_), None) => None,
        })
    }

    /// In what the device's interface is not as it should be.
    #[must_use]
    pub fn differences(&self, link: &Link) -> Vec<String> {
        let (mut differences, mtu) = match self {
            Self::Udp(udp) => (Vec::new(), udp.wanted_mtu()),
            Self::Vxlan(vxlan) => (vxlan.differences(link), vxlan.wanted_mtu()),
            Self::HostGw(_) | Self::Alloc { .. } => return Vec::new(),
        };
        if link.mtu != mtu {
            differences.push(format!("mtu is {}, wanted {mtu}", link.mtu));
        }
        if !link.is_up() {
            differences.push("it is down".to_owned());
        }
        differences
    }
}
