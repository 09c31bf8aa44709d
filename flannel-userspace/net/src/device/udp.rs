//! The UDP backend's device `flannel0`.

use flannel_model::device::{Device, UDP_DEVICE};
use rtnetlink::LinkBridge;
use rtnetlink::packet_route::link::{InfoBridge, InfoData, LinkFlags};

use super::{DeviceError, set_ipv6};
use crate::link::{Kind, Link};
use crate::{Error, Netlink};

impl Netlink {
    /// The device whose routes draw packets to the programs of the UDP backend, and out of which decapsulated packets
    /// come. It is a bridge without ports. The programs at its egress take packets before the bridge sees them; it
    /// drops the rest.
    ///
    /// A bridge, because it is one device that outlives the daemon, has a carrier as long as it never had a port, and
    /// takes super-packets whole. The alternatives, as tried: a persistent TUN has no carrier without a reader, so its
    /// routes are `linkdown` and it offers no TCP segmentation; a veth pair does as well but leaves a second device
    /// behind, which would hand an untaken packet back to the host to be compared again.
    ///
    /// It resolves no neighbours, and sends nothing by itself, neither multicast nor IPv6.
    ///
    /// # Errors
    /// The name belongs to something else, such as the TUN device of a stock daemon; the kernel refused.
    pub async fn ensure_udp_device(&self, mtu: u32) -> Result<Device, DeviceError> {
        let link = match self.link(UDP_DEVICE).await? {
            Some(link) if self.is_udp_device(&link).await? => link,
            Some(link) => return Err(foreign(&link)),
            None => self.create_udp_device().await?,
        };
        // None: no link-local address, so no router solicitations and no duplicate address detection.
        set_ipv6(UDP_DEVICE, "addr_gen_mode", "1")?;
        set_ipv6(UDP_DEVICE, "accept_ra", "0")?;
        self.bring_up(&link, mtu).await
    }

    async fn create_udp_device(&self) -> Result<Link, DeviceError> {
        let message = LinkBridge::new(UDP_DEVICE)
            .set_info_data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]))
            .down()
            .arp(false)
            .multicast(false)
            .build();
        self.add_link(UDP_DEVICE, message).await?;
        self.link(UDP_DEVICE).await?.ok_or_else(|| DeviceError::Vanished(UDP_DEVICE.to_owned()))
    }

    /// Whether `link` is as [`Netlink::ensure_udp_device`] makes it.
    pub(super) async fn is_udp_device(&self, link: &Link) -> Result<bool, Error> {
        if link.kind != Kind::Bridge || !link.flags.contains(LinkFlags::Noarp) {
            return Ok(false);
        }
        Ok(self.links().await?.iter().all(|port| port.controller != Some(link.index)))
    }
}

fn foreign(link: &Link) -> DeviceError {
    let is_tun = link.kind == Kind::Other("tun".to_owned());
    let remedy = if is_tun {
        "stop the flanneld that holds it; it goes with that daemon".to_owned()
    } else {
        format!("rename it, or delete it with `ip link delete {}`", link.name)
    };
    DeviceError::Foreign {
        name: link.name.clone(),
        kind: link.kind.to_string(),
        wanted: "the UDP backend's bridge without ports",
        remedy,
    }
}
