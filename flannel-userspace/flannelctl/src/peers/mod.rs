//! `flannelctl peers`: who is reached, by which path, and when each was last seen.

mod list;

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};

use anyhow::{Context as _, bail};
use clap::Args;
use flannel_common::maps::Node;
use flannel_model::backend::Kind;
use flannel_model::config::cidr::is_subnet_of;
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::{Netlink, Objects};
use ipnetwork::Ipv4Network;
use serde::Serialize;
use tokio::time::Instant;

use super::exit::{Code, Failure, Outcome};
use super::nodes::Names;
use super::objects::{self, Thing};
use super::output::Report;
use super::page::{Page, Tone, cell, or_dash, toned};
use super::place::Context;
use super::table::Sorting;
use super::units;
use super::watch::{Watch, again};
use list::Peer;
#[cfg(test)]
pub(super) use list::PeerName;
pub(super) use list::{PeerRate, Peers};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One peer: its subnet, an address in it, its public address, its node, or a name that resolves to one of these.
    #[arg(value_name = "NAME|SUBNET|IP", conflicts_with = "sort")]
    who: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Peer>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let printer = self.sorting.printer(context.printer);
        if let Some(who) = &self.who {
            return self.watch.show(printer, async || Whole::read(context, who).await).await;
        }
        let read = async || {
            let peers = Peers::read(&context.place.tables()?)?;
            anyhow::Ok(peers.named(&Names::ask(context).await))
        };
        let mut before = (Instant::now(), read().await?);
        let Some(pause) = self.watch.pause() else {
            self.sorting.sort(&mut before.1.peers);
            return printer.print(&before.1);
        };
        again(printer, pause, async || {
            let now = (Instant::now(), read().await?);
            let mut rates = now.1.rates(&before.1, (now.0 - before.0).as_secs_f64());
            before = now;
            self.sorting.sort(&mut rates.rates);
            Ok(rates)
        })
        .await
    }
}

/// Which peer was asked for.
pub(super) enum Wanted {
    Subnet(Ipv4Network),
    Addresses(Vec<Ipv4Addr>),
}

impl Wanted {
    /// Reads what the user wrote.
    ///
    /// # Errors
    /// It stands for nothing.
    pub(super) fn parse(who: &str) -> anyhow::Result<Self> {
        if let Ok(address) = who.parse::<Ipv4Addr>() {
            return Ok(Self::Addresses(vec![address]));
        }
        if let Ok(subnet) = who.parse::<Ipv4Network>() {
            return Ok(Self::Subnet(subnet));
        }
        let resolved = (who, 0).to_socket_addrs();
        let resolved = resolved
            .with_context(|| format!("{who} is no subnet and no address, and no name is known as that"))?;
        let ipv4 = |address: std::net::SocketAddr| match address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let addresses: Vec<Ipv4Addr> = resolved.filter_map(ipv4).collect();
        if addresses.is_empty() {
            bail!("{who} has no IPv4 address");
        }
        Ok(Self::Addresses(addresses))
    }

    /// Whether this is about the peer of this subnet and public address.
    pub(super) fn matches(&self, subnet: Option<Ipv4Network>, public_ip: Ipv4Addr) -> bool {
        match self {
            Self::Subnet(wanted) => subnet.is_some_and(|own| own.network() == wanted.network()),
            Self::Addresses(addresses) => addresses.iter().any(|address| {
                public_ip == *address || subnet.is_some_and(|subnet| subnet.contains(*address))
            }),
        }
    }
}

/// Everything about one peer.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    peer: Peer,
    /// What leads to it in the kernel's own tables.
    kernel: Vec<Thing>,
    /// How the kernel reaches its public address.
    underlay: Option<Thing>,
    /// Whether the backend has the kernel lead packets to it.
    #[serde(skip)]
    is_routed: bool,
}

/// Nothing is known of a peer that was asked for.
pub(super) fn no_such_peer(who: &str) -> Failure {
    let message =
        format!("no peer is {who}: `flannelctl peers` lists all, `flannelctl leases` who leases what");
    Failure::new(Code::NoSuchPeer, message)
}

impl Whole {
    /// Reads it.
    ///
    /// # Errors
    /// There is no such peer, or the maps or the kernel cannot be read.
    pub(super) async fn read(context: &Context<'_>, who: &str) -> anyhow::Result<Self> {
        let tables = context.place.tables()?;
        let mut peers = Peers::read(&tables)?.named(&Names::ask(context).await).peers;
        let found = match peers.iter().position(|peer| peer.node.as_deref() == Some(who)) {
            Some(named) => Some(peers.swap_remove(named)),
            None => {
                let wanted = Wanted::parse(who)?;
                peers.into_iter().find(|peer| wanted.matches(peer.subnet, peer.public_ip))
            }
        };
        Self::of(found.ok_or_else(|| no_such_peer(who))?, &tables.node()?).await
    }

    async fn of(peer: Peer, node: &Node) -> anyhow::Result<Self> {
        let netlink = Netlink::open()?;
        let device = (node.device != 0).then_some(node.device);
        let objects = Objects::new(netlink.clone(), PerFamily::only_v4(device)).list().await?;
        let kernel = objects.iter().filter(|object| peer.is_reached_by(object)).map(Thing::from);
        let route = netlink.route_to(peer.public_ip.into()).await?;
        let underlay = route.map(|route| {
            let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
            let device = route.device.map(objects::name).unwrap_or_default();
            Thing { kind: "route", text: format!("{}{via} dev {device}", peer.public_ip) }
        });
        let is_routed = Kind::from_number(node.backend).is_none_or(Kind::has_programs);
        Ok(Self { kernel: kernel.collect(), underlay, is_routed, peer })
    }
}

impl Peer {
    fn is_reached_by(&self, object: &Object) -> bool {
        match object {
            Object::Route { subnet, .. } | Object::Peer { subnet, .. } => {
                self.subnet.is_some_and(|own| is_subnet_of(own.into(), *subnet))
            }
            Object::Neighbour { ip, .. } => self.subnet.is_some_and(|own| own.network() == *ip),
            Object::Fdb { mac, vtep, .. } => {
                *vtep == self.public_ip || self.vtep_mac.as_ref().is_some_and(|own| *own == mac.to_string())
            }
        }
    }
}

impl Whole {
    const fn is_lost(&self) -> bool {
        self.is_routed && self.kernel.is_empty()
    }
}

impl Report for Whole {
    fn show(&self, page: &mut Page) {
        let Peer { sent_packets, sent_bytes, received_packets, received_bytes, .. } = self.peer;
        let counted = |packets, bytes| cell(format!("{packets} packets, {}", units::bytes(bytes)));
        let mut pairs: Vec<_> = self.peer.node.iter().map(|node| ("node", cell(node))).collect();
        pairs.extend([
            ("subnet", or_dash(self.peer.subnet)),
            ("public IP", cell(self.peer.public_ip)),
            ("VTEP", or_dash(self.peer.vtep_mac.as_ref())),
            ("path", cell(self.peer.path)),
            ("sent", counted(sent_packets, sent_bytes)),
            ("received", counted(received_packets, received_bytes)),
            ("last seen", cell(units::ago(self.peer.last_seen_seconds))),
            (
                "underlay",
                match &self.underlay {
                    Some(route) => cell(&route.text),
                    None => toned(Tone::Bad, "no route"),
                },
            ),
        ]);
        pairs.extend(self.kernel.iter().map(|thing| (thing.kind, cell(&thing.text))));
        page.pairs(pairs);
        if self.is_lost() {
            page.toned_line(Tone::Bad, "nothing in the kernel leads to it: see `flannelctl verify`");
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.underlay.is_some() && !self.is_lost())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::list::tests::peer;
    use super::{Thing, Wanted, Whole};
    use crate::exit::Outcome;
    use crate::output::Report as _;

    #[test]
    fn table_and_json_of_one() {
        let route =
            Thing { kind: "route", text: "10.5.22.0/24 via 10.5.22.0 dev flannel.1 onlink".to_owned() };
        let whole = Whole { peer: peer(22), kernel: vec![route], underlay: None, is_routed: true };
        assert_eq!(
            whole.text(),
            " subnet     10.5.22.0/24
 public IP  192.168.77.22
 VTEP       9a:54:52:6f:7f:94
 path       tunnel
 sent       3 packets, 294 B
 received   300 packets, 28.7 KiB
 last seen  2 min ago
 underlay   no route
 route      10.5.22.0/24 via 10.5.22.0 dev flannel.1 onlink
"
        );
        let value = serde_json::to_value(&whole).unwrap();
        assert_eq!(
            value["kernel"],
            json!([{"kind": "route", "text": "10.5.22.0/24 via 10.5.22.0 dev flannel.1 onlink"}])
        );
        assert_eq!(whole.outcome(), Outcome::Otherwise, "the underlay does not lead there");
        let underlay = || Some(Thing { kind: "route", text: "192.168.77.22 dev eth0".to_owned() });
        let reached = Whole { underlay: underlay(), ..whole };
        assert_eq!(reached.outcome(), Outcome::AsItShouldBe);
        let lost = Whole { kernel: Vec::new(), ..reached };
        assert!(lost.text().contains("nothing in the kernel leads to it"));
        assert_eq!(lost.outcome(), Outcome::Otherwise);
        assert_eq!(Whole { is_routed: false, ..lost }.outcome(), Outcome::AsItShouldBe);
    }

    #[test]
    fn a_peer_is_found_by_whatever_is_known_of_it() {
        for who in ["10.5.22.0/24", "10.5.22.7", "192.168.77.22"] {
            assert!(Wanted::parse(who).unwrap().matches(peer(22).subnet, peer(22).public_ip), "{who}");
        }
        for who in ["10.5.23.0/24", "10.5.23.7", "localhost"] {
            assert!(!Wanted::parse(who).unwrap().matches(peer(22).subnet, peer(22).public_ip), "{who}");
        }
    }
}
