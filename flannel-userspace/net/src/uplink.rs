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

    /// Adds an interface, as `ip link add` has it, and brings it up, with an address or none.
    fn add(name: &str, link: &str, address: &str) {
        ip(&format!("link add {link}"));
        up(name, address);
    }

    fn up(name: &str, address: &str) {
        if !address.is_empty() {
            ip(&format!("address add {address} dev {name}"));
        }
        ip(&format!("link set {name} up"));
    }

    /// Adds a pair whose other end is in another network namespace.
    fn add_pair(name: &str, address: &str) {
        let other = format!("{name}-{}", std::process::id());
        add(name, &format!("{name} type veth peer name {other} netns 1"), address);
    }

    #[test]
    fn what_leads_outside_is_an_uplink_and_what_leads_to_pods_is_none() {
        in_namespace(async |netlink| {
            add("d0", "d0 type dummy", "192.0.2.1/24");
            for (vlan, name) in [(5, "vlan"), (6, "port"), (7, "pods")] {
                add(name, &format!("link d0 name {name} type vlan id {vlan}"), "");
            }
            add("docker0", "docker0 type bridge", "172.17.0.1/16");
            add("br0", "br0 type bridge", "192.168.78.1/24");
            add("cni0", "cni0 type bridge", "10.5.1.1/24");
            ip("link set port master br0");
            ip("link set pods master cni0");
            add_pair("card", "192.168.79.1/24");
            add_pair("pod", "10.5.1.1/32");
            add_pair("bare", "");
            for (name, mode, address) in
                [("tun1", "tun", "10.9.0.1/32"), ("tun2", "tun", ""), ("tap1", "tap", "10.8.0.1/24")]
            {
                ip(&format!("tuntap add {name} mode {mode}"));
                up(name, address);
            }
            let uplinks = names(&netlink, &[]).await;
            assert_eq!(
                uplinks.iter().map(String::as_str).collect::<Vec<_>>(),
                ["br0", "card", "tun1", "vlan"]
            );
            ip("link set vlan down");
            let uplinks = names(&netlink, &["tap1"]).await;
            assert_eq!(
                uplinks.iter().map(String::as_str).collect::<Vec<_>>(),
                ["br0", "card", "tap1", "tun1"]
            );
        });
    }

    #[test]
    fn it_is_told_where_packets_have_ethernet_headers() {
        in_namespace(async |netlink| {
            add_pair("card", "192.168.79.1/24");
            ip("tuntap add tun1 mode tun");
            up("tun1", "10.9.0.1/32");
            let uplinks = netlink.uplinks(&BTreeSet::new(), &[]).await.unwrap();
            let ethernet: Vec<bool> = uplinks.iter().map(|uplink| uplink.has_ethernet).collect();
            assert_eq!(ethernet, [true, false]);
        });
    }
}
