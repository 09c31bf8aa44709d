//! `flannelctl peers`: who is reached, by which path, and when each was last seen.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use flannel_common::maps::{Node, PeerCount};
use flannel_datapath::{DatapathError, PeerEntry, Tables, monotonic_nanoseconds};
use flannel_model::backend::Kind;
use flannel_model::config::cidr::is_subnet_of;
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::{Netlink, Objects};
use ipnetwork::Ipv4Network;
use serde::Serialize;

use super::objects::{self, Thing};
use super::output::{Page, Report, Tone, cell, or_dash, toned};
use super::place::Context;
use super::status::network;
use super::units;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One peer: its subnet, an address in it, its public address, or a name that resolves to one of these.
    #[arg(value_name = "NAME|SUBNET|IP")]
    who: Option<String>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let tables = context.place.tables()?;
        match &self.who {
            None => context.printer.print(&Peers::read(&tables)?)?,
            Some(who) => {
                let wanted = Wanted::parse(who)?;
                let found = Peers::read(&tables)?
                    .peers
                    .into_iter()
                    .find(|peer| wanted.matches(peer.subnet, peer.public_ip));
                let peer = found.with_context(|| {
                    format!(
                        "no peer is {who}: `flannelctl peers` lists all, `flannelctl leases` who leases what"
                    )
                })?;
                context.printer.print(&Whole::of(peer, &tables.node()?).await?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
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

/// The peers.
#[derive(Debug, Serialize)]
pub(super) struct Peers {
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Peer {
    subnet: Option<Ipv4Network>,
    public_ip: Ipv4Addr,
    vtep_mac: Option<String>,
    /// `tunnel`, or `direct` where a route leads straight to the peer and its packets are not counted here.
    path: &'static str,
    sent_packets: u64,
    sent_bytes: u64,
    received_packets: u64,
    received_bytes: u64,
    /// Seconds since the last packet from the peer.
    last_seen_seconds: Option<u64>,
    /// Whether it takes packets whole; `None` if that is not learned.
    whole: Option<bool>,
}

impl Peers {
    /// Reads the maps.
    pub(super) fn read(tables: &Tables) -> Result<Self, DatapathError> {
        let node = tables.node()?;
        let now = monotonic_nanoseconds();
        let seconds = u32::try_from(now / 1_000_000_000).unwrap_or(u32::MAX);
        let peers = tables.raw_peers()?.into_iter().map(|(subnet, raw)| {
            let count = tables.peer_count(subnet)?;
            let is_learned = node.backend == Kind::Udp.number() && raw.direct == 0;
            let whole = is_learned.then(|| raw.accepts_gso(seconds));
            let peer = Peer::new(network(subnet.into(), node.netmask), &raw.into(), &count, now);
            Ok(Peer { whole, ..peer })
        });
        Ok(Self { peers: peers.collect::<Result<_, DatapathError>>()? })
    }
}

impl Peer {
    fn new(subnet: Option<Ipv4Network>, entry: &PeerEntry, count: &PeerCount, now: u64) -> Self {
        let ago = now.saturating_sub(count.last_seen) / 1_000_000_000;
        Self {
            subnet,
            public_ip: entry.public_ip,
            vtep_mac: entry.vtep_mac.is_unicast().then(|| entry.vtep_mac.to_string()),
            path: if entry.direct { "direct" } else { "tunnel" },
            sent_packets: count.sent.packets,
            sent_bytes: count.sent.bytes,
            received_packets: count.received.packets,
            received_bytes: count.received.bytes,
            last_seen_seconds: (count.last_seen != 0).then_some(ago),
            whole: None,
        }
    }
}

impl Report for Peers {
    fn show(&self, page: &mut Page) {
        let rows = self.peers.iter().map(|peer| {
            vec![
                or_dash(peer.subnet),
                cell(peer.public_ip),
                or_dash(peer.vtep_mac.as_ref()),
                cell(peer.path),
                cell(peer.sent_packets),
                cell(units::bytes(peer.sent_bytes)),
                cell(peer.received_packets),
                cell(units::bytes(peer.received_bytes)),
                match peer.last_seen_seconds {
                    None => toned(Tone::Aside, units::ago(None)),
                    seen => cell(units::ago(seen)),
                },
            ]
        });
        let header =
            ["SUBNET", "PUBLIC IP", "VTEP", "PATH", ">SENT", ">BYTES", ">RECEIVED", ">BYTES", "LAST SEEN"];
        page.table(&header, rows);
    }
}

/// Everything about one peer.
#[derive(Debug, Serialize)]
struct Whole {
    peer: Peer,
    /// What leads to it in the kernel's own tables.
    kernel: Vec<Thing>,
    /// How the kernel reaches its public address.
    underlay: Option<Thing>,
}

impl Whole {
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
        Ok(Self { kernel: kernel.collect(), underlay, peer })
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

impl Report for Whole {
    fn show(&self, page: &mut Page) {
        let Peer { sent_packets, sent_bytes, received_packets, received_bytes, .. } = self.peer;
        let counted = |packets, bytes| cell(format!("{packets} packets, {}", units::bytes(bytes)));
        let mut pairs = vec![
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
        ];
        pairs.extend(self.kernel.iter().map(|thing| (thing.kind, cell(&thing.text))));
        page.pairs(pairs);
        if self.kernel.is_empty() {
            page.toned_line(Tone::Bad, "nothing in the kernel leads to it: see `flannelctl verify`");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Peer, Peers, Thing, Wanted, Whole};
    use crate::output::Report as _;

    fn peer() -> Peer {
        Peer {
            subnet: Some("10.5.22.0/24".parse().unwrap()),
            public_ip: [192, 168, 77, 12].into(),
            vtep_mac: Some("9a:54:52:6f:7f:94".to_owned()),
            path: "tunnel",
            sent_packets: 3,
            sent_bytes: 294,
            received_packets: 300,
            received_bytes: 29_400,
            last_seen_seconds: Some(130),
            whole: None,
        }
    }

    #[test]
    fn table_and_json_of_all() {
        let peers = Peers { peers: vec![peer()] };
        assert_eq!(
            peers.text(),
            " SUBNET        PUBLIC IP      VTEP               PATH    SENT  BYTES  RECEIVED     BYTES  LAST SEEN
 10.5.22.0/24  192.168.77.12  9a:54:52:6f:7f:94  tunnel     3  294 B       300  28.7 KiB  2 min ago
"
        );
        assert_eq!(
            serde_json::to_value(peers).unwrap(),
            json!({"peers": [{
                "subnet": "10.5.22.0/24", "public_ip": "192.168.77.12", "vtep_mac": "9a:54:52:6f:7f:94",
                "path": "tunnel", "sent_packets": 3, "sent_bytes": 294, "received_packets": 300,
                "received_bytes": 29400, "last_seen_seconds": 130, "whole": null,
            }]})
        );
    }

    #[test]
    fn table_and_json_of_one() {
        let route =
            Thing { kind: "route", text: "10.5.22.0/24 via 10.5.22.0 dev flannel.1 onlink".to_owned() };
        let whole = Whole { peer: peer(), kernel: vec![route], underlay: None };
        assert_eq!(
            whole.text(),
            " subnet     10.5.22.0/24
 public IP  192.168.77.12
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
        let lost = Whole { kernel: Vec::new(), ..whole };
        assert!(lost.text().contains("nothing in the kernel leads to it"));
    }

    #[test]
    fn a_peer_is_found_by_whatever_is_known_of_it() {
        for who in ["10.5.22.0/24", "10.5.22.7", "192.168.77.12"] {
            assert!(Wanted::parse(who).unwrap().matches(peer().subnet, peer().public_ip), "{who}");
        }
        for who in ["10.5.23.0/24", "10.5.23.7", "localhost"] {
            assert!(!Wanted::parse(who).unwrap().matches(peer().subnet, peer().public_ip), "{who}");
        }
    }
}
