//! All peers: what was forwarded to and from each, in total or per second.

use std::net::Ipv4Addr;

use flannel_common::maps::PeerCount;
use flannel_datapath::{DatapathError, PeerEntry, Tables, monotonic_nanoseconds};
use flannel_model::backend::Kind;
use ipnetwork::Ipv4Network;
use serde::Serialize;

use crate::nodes::Names;
use crate::output::Report;
use crate::page::{Page, Tone, cell, or_dash, toned};
use crate::status::network;
use crate::table::{Column, Key, Row};
use crate::units::{self, per_second};

/// The peers.
#[derive(Debug, Serialize)]
pub(crate) struct Peers {
    pub(crate) peers: Vec<Peer>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Peer {
    /// How its node is called, where the daemon says so.
    pub(super) node: Option<String>,
    pub(super) subnet: Option<Ipv4Network>,
    pub(super) public_ip: Ipv4Addr,
    pub(super) vtep_mac: Option<String>,
    /// `tunnel`, or `direct` where a route leads straight to the peer and its packets are not counted here.
    pub(super) path: &'static str,
    pub(super) sent_packets: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) received_bytes: u64,
    /// Seconds since the last packet from the peer.
    pub(super) last_seen_seconds: Option<u64>,
    /// Whether it takes packets whole; `None` if that is not learned.
    pub(super) whole: Option<bool>,
}

impl Peers {
    /// Reads the maps.
    pub(crate) fn read(tables: &Tables) -> Result<Self, DatapathError> {
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

    /// The same with the names of their nodes.
    pub(crate) fn named(mut self, names: &Names) -> Self {
        for peer in &mut self.peers {
            peer.node = names.of(peer.subnet).map(str::to_owned);
        }
        self
    }

    /// What was forwarded since `before`, by the second. A peer that came since was counted from zero.
    pub(crate) fn rates(&self, before: &Self, seconds: f64) -> PeerRates {
        let former = |peer: &Peer| {
            let found = before.peers.binary_search_by_key(&peer.subnet, |former| former.subnet);
            found.ok().and_then(|index| before.peers.get(index))
        };
        let rates = self.peers.iter().map(|peer| PeerRate::of(peer, former(peer), seconds));
        PeerRates { seconds: (seconds * 1000.0).round() / 1000.0, rates: rates.collect() }
    }
}

impl Peer {
    fn new(subnet: Option<Ipv4Network>, entry: &PeerEntry, count: &PeerCount, now: u64) -> Self {
        let ago = now.saturating_sub(count.last_seen) / 1_000_000_000;
        Self {
            node: None,
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

/// When a peer was last seen, for people.
fn last_seen(seconds: Option<u64>) -> comfy_table::Cell {
    match seconds {
        None => toned(Tone::Aside, units::ago(None)),
        seen => cell(units::ago(seen)),
    }
}

fn subnet_key(subnet: Option<Ipv4Network>) -> Key {
    Key::of(subnet, |subnet| Key::Subnet(subnet.into()))
}

impl Row for Peer {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("subnet", "SUBNET", |peer| or_dash(peer.subnet), |peer| subnet_key(peer.subnet)),
        Column::words(
            "public-ip",
            "PUBLIC IP",
            |peer| cell(peer.public_ip),
            |peer| Key::Address(peer.public_ip.into()),
        ),
        Column::words(
            "vtep",
            "VTEP",
            |peer| or_dash(peer.vtep_mac.as_ref()),
            |peer| Key::of(peer.vtep_mac.as_ref(), Key::text),
        ),
        Column::words("path", "PATH", |peer| cell(peer.path), |peer| Key::text(peer.path)),
        Column::figures(
            "sent",
            "SENT",
            |peer| cell(peer.sent_packets),
            |peer| Key::amount(peer.sent_packets),
        ),
        Column::figures(
            "sent-bytes",
            "BYTES",
            |peer| cell(units::bytes(peer.sent_bytes)),
            |peer| Key::amount(peer.sent_bytes),
        ),
        Column::figures(
            "received",
            "RECEIVED",
            |peer| cell(peer.received_packets),
            |peer| Key::amount(peer.received_packets),
        ),
        Column::figures(
            "received-bytes",
            "BYTES",
            |peer| cell(units::bytes(peer.received_bytes)),
            |peer| Key::amount(peer.received_bytes),
        ),
        Column::words(
            "last-seen",
            "LAST SEEN",
            |peer| last_seen(peer.last_seen_seconds),
            |peer| Key::of(peer.last_seen_seconds, Key::Seconds),
        ),
        Column::words(
            "node",
            "NODE",
            |peer: &Self| or_dash(peer.node.as_ref()),
            |peer: &Self| Key::of(peer.node.as_ref(), Key::text),
        )
        .where_there_is_one(),
    ];
}

impl Report for Peers {
    fn show(&self, page: &mut Page) {
        page.table(&self.peers);
    }
}

/// The peers' counters per second.
#[derive(Debug, Serialize)]
pub(crate) struct PeerRates {
    /// Over how long.
    seconds: f64,
    pub(crate) rates: Vec<PeerRate>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PeerRate {
    #[serde(flatten)]
    pub(crate) peer: PeerName,
    pub(crate) sent_packets_per_second: u64,
    pub(crate) sent_bytes_per_second: u64,
    pub(crate) received_packets_per_second: u64,
    pub(crate) received_bytes_per_second: u64,
    pub(crate) last_seen_seconds: Option<u64>,
}

/// Which peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PeerName {
    pub(crate) node: Option<String>,
    pub(crate) subnet: Option<Ipv4Network>,
    pub(crate) public_ip: Ipv4Addr,
    pub(crate) vtep_mac: Option<String>,
    pub(crate) path: &'static str,
}

impl PeerRate {
    fn of(peer: &Peer, before: Option<&Peer>, seconds: f64) -> Self {
        let since = |count: fn(&Peer) -> u64| {
            let (now, then) = (count(peer), before.map_or(0, count));
            // Counters of a datapath that was made anew have begun at zero.
            per_second(now.checked_sub(then).unwrap_or(now), seconds)
        };
        Self {
            peer: PeerName {
                node: peer.node.clone(),
                subnet: peer.subnet,
                public_ip: peer.public_ip,
                vtep_mac: peer.vtep_mac.clone(),
                path: peer.path,
            },
            sent_packets_per_second: since(|peer| peer.sent_packets),
            sent_bytes_per_second: since(|peer| peer.sent_bytes),
            received_packets_per_second: since(|peer| peer.received_packets),
            received_bytes_per_second: since(|peer| peer.received_bytes),
            last_seen_seconds: peer.last_seen_seconds,
        }
    }
}

impl Row for PeerRate {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words(
            "subnet",
            "SUBNET",
            |rate| or_dash(rate.peer.subnet),
            |rate| subnet_key(rate.peer.subnet),
        ),
        Column::words(
            "public-ip",
            "PUBLIC IP",
            |rate| cell(rate.peer.public_ip),
            |rate| Key::Address(rate.peer.public_ip.into()),
        ),
        Column::words(
            "vtep",
            "VTEP",
            |rate| or_dash(rate.peer.vtep_mac.as_ref()),
            |rate| Key::of(rate.peer.vtep_mac.as_ref(), Key::text),
        ),
        Column::words("path", "PATH", |rate| cell(rate.peer.path), |rate| Key::text(rate.peer.path)),
        Column::figures(
            "sent",
            "SENT/S",
            |rate| cell(rate.sent_packets_per_second),
            |rate| Key::amount(rate.sent_packets_per_second),
        ),
        Column::figures(
            "sent-bytes",
            "RATE",
            |rate| cell(units::bits_per_second(rate.sent_bytes_per_second)),
            |rate| Key::amount(rate.sent_bytes_per_second),
        ),
        Column::figures(
            "received",
            "RECEIVED/S",
            |rate| cell(rate.received_packets_per_second),
            |rate| Key::amount(rate.received_packets_per_second),
        ),
        Column::figures(
            "received-bytes",
            "RATE",
            |rate| cell(units::bits_per_second(rate.received_bytes_per_second)),
            |rate| Key::amount(rate.received_bytes_per_second),
        ),
        Column::words(
            "last-seen",
            "LAST SEEN",
            |rate| last_seen(rate.last_seen_seconds),
            |rate| Key::of(rate.last_seen_seconds, Key::Seconds),
        ),
        Column::words(
            "node",
            "NODE",
            |rate: &Self| or_dash(rate.peer.node.as_ref()),
            |rate: &Self| Key::of(rate.peer.node.as_ref(), Key::text),
        )
        .where_there_is_one(),
    ];
}

impl Report for PeerRates {
    fn show(&self, page: &mut Page) {
        page.table(&self.rates);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::{Peer, PeerRate, Peers};
    use crate::output::Report as _;
    use crate::table::Row as _;

    /// The peer of the host of that number.
    pub(crate) fn peer(host: u8) -> Peer {
        Peer {
            node: None,
            subnet: Some(format!("10.5.{host}.0/24").parse().unwrap()),
            public_ip: [192, 168, 77, host].into(),
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
        let peers = Peers { peers: vec![peer(22)] };
        assert_eq!(
            peers.text(),
            " SUBNET        PUBLIC IP      VTEP               PATH    SENT  BYTES  RECEIVED     BYTES  LAST SEEN
 10.5.22.0/24  192.168.77.22  9a:54:52:6f:7f:94  tunnel     3  294 B       300  28.7 KiB  2 min ago
"
        );
        assert_eq!(
            serde_json::to_value(peers).unwrap(),
            json!({"peers": [{
                "node": null, "subnet": "10.5.22.0/24", "public_ip": "192.168.77.22", "vtep_mac": "9a:54:52:6f:7f:94",
                "path": "tunnel", "sent_packets": 3, "sent_bytes": 294, "received_packets": 300,
                "received_bytes": 29400, "last_seen_seconds": 130, "whole": null,
            }]})
        );
    }

    #[test]
    fn table_and_json_of_rates() {
        let before = Peers { peers: vec![peer(22)] };
        let now = Peers {
            peers: vec![
                Peer { sent_packets: 203, sent_bytes: 200_294, last_seen_seconds: Some(0), ..peer(22) },
                peer(23),
            ],
        };
        let rates = now.rates(&before, 2.0);
        assert_eq!(
            rates.text(),
            " SUBNET        PUBLIC IP      VTEP               PATH    SENT/S          RATE  RECEIVED/S          RATE  LAST SEEN
 10.5.22.0/24  192.168.77.22  9a:54:52:6f:7f:94  tunnel     100  800.0 kbit/s           0       0 bit/s  0 s ago
 10.5.23.0/24  192.168.77.23  9a:54:52:6f:7f:94  tunnel       2    1.1 kbit/s         150  117.6 kbit/s  2 min ago
"
        );
        assert_eq!(
            serde_json::to_value(&rates).unwrap()["rates"][0],
            json!({
                "node": null, "subnet": "10.5.22.0/24", "public_ip": "192.168.77.22", "vtep_mac": "9a:54:52:6f:7f:94",
                "path": "tunnel", "sent_packets_per_second": 100, "sent_bytes_per_second": 100_000,
                "received_packets_per_second": 0, "received_bytes_per_second": 0, "last_seen_seconds": 0,
            })
        );
    }

    #[test]
    fn nodes_are_named_where_they_have_names() {
        let named = Peer { node: Some("worker-7".to_owned()), ..peer(22) };
        let text = Peers { peers: vec![named, peer(23)] }.text();
        let [header, first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(header.ends_with("LAST SEEN  NODE"), "{text}");
        assert!(first.ends_with("2 min ago  worker-7") && second.ends_with("2 min ago  -"), "{text}");
    }

    #[test]
    fn totals_and_rates_are_sorted_by_the_same_names() {
        assert!(Peer::names().eq(PeerRate::names()));
    }
}
