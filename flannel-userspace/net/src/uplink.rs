//! The interfaces by which packets of the tunnel can arrive, besides the chosen underlay: others may reach the host by
//! any of its interfaces, whichever one its own packets leave by.
//!
//! Interfaces of containers and virtual machines are left out. Whoever sends there could claim a peer's address, which
//! the guard goes by.

use std::collections::BTreeSet;

use flannel_model::device::is_flannel;
use flannel_model::family::Family;
use rtnetlink::packet_route::link::LinkFlags;

use super::address::Address;
use super::link::{Kind, Link};
use super::{Error, Netlink};

/// Kinds of devices whose packets come from outside the host: they stand for a network card, or for several.
const CARDS: [&str; 9] = ["bond", "hsr", "ipoib", "ipvlan", "macsec", "macvlan", "team", "vlan", "wwan"];

/// An interface by which packets of the tunnel can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Whether its packets have Ethernet headers.
    pub has_ethernet: bool,
}

impl Netlink {
    /// The interfaces by which packets of the tunnel can arrive. The ones of those indexes in `known` are among them in
    /// any case, if they are there; the bridges with the names `pod_bridges` are not.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn uplinks(
        &self,
        known: &BTreeSet<u32>,
        pod_bridges: &[String],
    ) -> Result<BTreeSet<Uplink>, Error> {
        let (links, addresses) = (self.links().await?, self.addresses(Family::V4).await?);
        let host = Host { links: &links, addresses: &addresses };
        let is_wanted = |link: &&Link| {
            known.contains(&link.index) || !pod_bridges.contains(&link.name) && host.has_uplink(link)
        };
        let uplinks = links.iter().filter(is_wanted);
        Ok(uplinks.map(|link| Uplink { index: link.index, has_ethernet: link.has_ethernet }).collect())
    }
}

struct Host<'a> {
    links: &'a [Link],
    addresses: &'a [Address],
}

impl Host<'_> {
    fn has_uplink(&self, link: &Link) -> bool {
        let is_away = !link.is_up() || link.flags.contains(LinkFlags::Loopback) || is_flannel(&link.name);
        !is_away && !self.is_port(link) && self.leads_outside(link)
    }

    /// Whether what arrives continues at a bridge or a bond. A VRF's packets arrive at the interfaces in it.
    fn is_port(&self, link: &Link) -> bool {
        let is_vrf = |index| self.links.iter().any(|link| link.index == index && link.is_vrf());
        link.controller.is_some_and(|controller| !is_vrf(controller))
    }

    fn leads_outside(&self, link: &Link) -> bool {
        match &link.kind {
            Kind::Unstated => true,
            Kind::Bridge => self.has_address(link, 32) && self.has_card(link),
            Kind::Vxlan(_) => false,
            Kind::Other(kind) if CARDS.contains(&kind.as_str()) => true,
            // The card of a host that is a container itself. What plugins give the host's end of a pod's pair is the
            // address of a host alone.
            Kind::Other(kind) if kind == "veth" => link.peer_in_other_netns && self.has_address(link, 31),
            Kind::Other(_) => !link.has_ethernet && self.has_address(link, 32),
        }
    }

    /// Whether one of the bridge's ports is a card. Containers and virtual machines have pairs and TAP devices.
    fn has_card(&self, bridge: &Link) -> bool {
        self.links.iter().filter(|port| port.controller == Some(bridge.index)).any(|port| match &port.kind {
            Kind::Unstated => true,
            Kind::Other(kind) => CARDS.contains(&kind.as_str()),
            Kind::Bridge | Kind::Vxlan(_) => false,
        })
    }

    /// Whether it has an address whose network is at most so long.
    fn has_address(&self, link: &Link, longest: u8) -> bool {
        self.addresses.iter().any(|own| own.link == link.index && own.network.prefix() <= longest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::Netlink;
    use crate::namespace::{in_namespace, ip};

    async fn names(netlink: &Netlink, known: &[&str]) -> BTreeSet<String> {
        let links = netlink.links().await.unwrap();
        let index = |name: &&str| links.iter().find(|link| link.name == **name).unwrap().index;
        let known = known.iter().map(index).collect();
        let uplinks = netlink.uplinks(&known, &["cni0".to_owned()]).await.unwrap();
        let name = |index| links.iter().find(|link| link.index == index).unwrap().name.clone();
        uplinks.iter().map(|uplink| name(uplink.index)).collect()
    }

    fn up(name: &str, kind: &str, address: &str) {
        ip(&format!("link add {name} type {kind}"));
        if !address.is_empty() {
            ip(&format!("address add {address} dev {name}"));
        }
        ip(&format!("link set {name} up"));
    }

    /// A pair with one end in another network namespace.
    fn pair(name: &str, address: &str) {
        ip(&format!("netns add fl-uplink-{name}-{}", std::process::id()));
        up(name, &format!("veth peer name x netns fl-uplink-{name}-{}", std::process::id()), address);
        ip(&format!("netns delete fl-uplink-{name}-{}", std::process::id()));
    }

    #[test]
    fn what_leads_outside_is_an_uplink_and_what_leads_to_pods_is_none() {
        in_namespace(async |netlink| {
            up("docker0", "bridge", "172.17.0.1/16");
            up("br0", "bridge", "192.168.78.1/24");
            up("cni0", "bridge", "10.5.1.1/24");
            up("d0", "dummy", "");
            up("vlan0", "vlan id 5", "");
            assert!(names(&netlink, &[]).await.is_empty());
        });
    }
}
