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
const CARDS: [&str; 8] = ["bond", "hsr", "ipvlan", "macsec", "macvlan", "team", "vlan", "wwan"];

/// An interface by which packets of the tunnel can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// Interface index.
    pub index: u32,
    /// Whether its packets have Ethernet headers.
    pub has_ethernet: bool,
}

impl Netlink {
    /// The interfaces by which packets of the tunnel can arrive. The one with the index `underlay` and those in `ways` are
    /// among them in any case, if they are there; the bridges with the names `pod_bridges` are not.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn uplinks(
        &self,
        underlay: u32,
        ways: &BTreeSet<u32>,
        pod_bridges: &[String],
    ) -> Result<BTreeSet<Uplink>, Error> {
        let (links, addresses) = (self.links().await?, self.addresses(Family::V4).await?);
        let host = Host { links: &links, addresses: &addresses, underlay };
        let is_wanted = |link: &&Link| {
            let is_known = link.index == underlay || ways.contains(&link.index);
            is_known || !pod_bridges.contains(&link.name) && host.has_uplink(link)
        };
        let uplinks = links.iter().filter(is_wanted);
        Ok(uplinks.map(|link| Uplink { index: link.index, has_ethernet: link.has_ethernet }).collect())
    }
}

struct Host<'a> {
    links: &'a [Link],
    addresses: &'a [Address],
    /// The index of the chosen underlay.
    underlay: u32,
}

impl Host<'_> {
    fn has_uplink(&self, link: &Link) -> bool {
        let is_away = !link.is_up() || link.flags.contains(LinkFlags::Loopback) || is_flannel(&link.name);
        !is_away && link.controller == self.vrf() && self.leads_outside(link)
    }

    /// The VRF of the underlay, in which the tunnel's socket would be. Nothing is received for it by the interfaces of
    /// another one (`udp_l3mdev_accept`), nor by ports of a bridge or a bond.
    fn vrf(&self) -> Option<u32> {
        let is_vrf = |index: &u32| self.links.iter().any(|link| link.index == *index && link.is_vrf());
        self.underlay()?.controller.filter(is_vrf)
    }

    fn underlay(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.index == self.underlay)
    }

    /// Whether this host is a container itself, whose cards are ends of pairs.
    fn is_container(&self) -> bool {
        self.underlay().is_some_and(is_veth)
    }

    fn leads_outside(&self, link: &Link) -> bool {
        match &link.kind {
            // A card without an address may lead to a virtual machine, as those of a card's own switch do.
            Kind::Unstated => self.has_address(link, 32),
            Kind::Bridge => self.has_address(link, 32) && self.has_card(link),
            Kind::Vxlan(_) => false,
            Kind::Other(kind) if CARDS.contains(&kind.as_str()) => true,
            // What plugins give the host's end of a pod's pair is the address of a host alone.
            Kind::Other(_) if is_veth(link) => {
                self.is_container() && link.peer_in_other_netns && self.has_address(link, 31)
            }
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

fn is_veth(link: &Link) -> bool {
    matches!(&link.kind, Kind::Other(kind) if kind == "veth")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::Netlink;
    use crate::namespace::{in_namespace, ip};

    async fn names(netlink: &Netlink, underlay: &str, ways: &[&str]) -> Vec<String> {
        let links = netlink.links().await.unwrap();
        let index = |name: &str| links.iter().find(|link| link.name == name).unwrap().index;
        let ways = ways.iter().map(|name| index(name)).collect();
        let uplinks = netlink.uplinks(index(underlay), &ways, &["cni0".to_owned()]).await.unwrap();
        let name = |index| links.iter().find(|link| link.index == index).unwrap().name.clone();
        let names: BTreeSet<String> = uplinks.iter().map(|uplink| name(uplink.index)).collect();
        names.into_iter().collect()
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
            add_pair("card", "192.168.79.1/24");
            for name in ["macvlan", "port", "pods"] {
                add(name, &format!("link card name {name} type macvlan"), "");
            }
            add("docker0", "docker0 type bridge", "172.17.0.1/16");
            add("br0", "br0 type bridge", "192.168.78.1/24");
            add("cni0", "cni0 type bridge", "10.5.1.1/24");
            ip("link set port master br0");
            ip("link set pods master cni0");
            add_pair("second", "192.168.80.1/24");
            add_pair("pod", "10.5.1.1/32");
            add_pair("bare", "");
            for (name, mode, address) in
                [("tun1", "tun", "10.9.0.1/32"), ("tun2", "tun", ""), ("tap1", "tap", "10.8.0.1/24")]
            {
                ip(&format!("tuntap add {name} mode {mode}"));
                up(name, address);
            }
            let all = ["br0", "card", "macvlan", "second", "tun1"];
            assert_eq!(names(&netlink, "card", &[]).await, all);
            // Where the underlay is none, pairs lead to containers.
            assert_eq!(names(&netlink, "br0", &[]).await, ["br0", "macvlan", "tun1"]);
            ip("link set macvlan down");
            assert_eq!(names(&netlink, "br0", &["tap1"]).await, ["br0", "tap1", "tun1"]);
        });
    }

    #[test]
    fn it_is_told_where_packets_have_ethernet_headers() {
        in_namespace(async |netlink| {
            add_pair("card", "192.168.79.1/24");
            ip("tuntap add tun1 mode tun");
            up("tun1", "10.9.0.1/32");
            let card = netlink.link("card").await.unwrap().unwrap().index;
            let uplinks = netlink.uplinks(card, &BTreeSet::new(), &[]).await.unwrap();
            let ethernet: Vec<bool> = uplinks.iter().map(|uplink| uplink.has_ethernet).collect();
            assert_eq!(ethernet, [true, false]);
        });
    }
}
