//! `flannelctl maps`: the entries of the maps, in words.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use comfy_table::CellAlignment;
use flannel_common::flow::{Connection, Direction, Flow, FlowKey, Way};
use flannel_common::maps::{
    self, APPROVED, COUNTERS, Count, FLOWS, GENERATION, Kind, NODE_INFO, NextHop, PEER_COUNTERS, PEERS,
    PORTS, Peer, PeerCount, SOURCES, TRACE_FILTER,
};
use flannel_common::trace::TraceFilter;
use flannel_datapath::Tables;
use flannel_model::backend;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::counters::Counts;
use super::exit::{Code, Failure, Outcome};
use super::hooks::Interface;
use super::output::Report;
use super::page::{Header, Page, cell};
use super::place::Context;
use super::table::{Headers, Key};
use super::units;
use super::watch::Watch;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints every entry of each map, or of one.
    Dump {
        /// Only this one.
        #[arg(value_parser = name, value_name = "MAP")]
        map: Option<&'static str>,
        /// Sort MAP by this column: figures the largest first, all else the smallest first.
        #[arg(long, value_name = "COLUMN", requires = "map")]
        sort: Option<String>,
        #[command(flatten)]
        headers: Headers,
        #[command(flatten)]
        watch: Watch,
    },
}

fn name(text: &str) -> Result<&'static str, String> {
    let known = entered().find(|name| name.eq_ignore_ascii_case(text));
    known.ok_or_else(|| {
        let names: Vec<&str> = entered().collect();
        format!("there are the maps {}", names.join(", "))
    })
}

/// The maps with entries. Reading a ring removes what is in it.
fn entered() -> impl Iterator<Item = &'static str> {
    maps::ALL.iter().filter(|layout| layout.kind != Kind::RingBuf).map(|layout| layout.name)
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let Verb::Dump { map, sort, headers, watch } = &self.verb;
        let look = async || {
            let mut dump = Dump::read(&context.place.tables()?, *map)?;
            if let Some(column) = sort {
                dump.sort(column)?;
            }
            Ok(dump)
        };
        watch.show(headers.printer(context.printer), look).await
    }
}

/// Entries by map; each entry is an object.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Dump(BTreeMap<&'static str, Vec<Map<String, Value>>>);

impl Dump {
    /// Reads every map, or `only` one.
    pub(super) fn read(tables: &Tables, only: Option<&str>) -> anyhow::Result<Self> {
        let mut dump = BTreeMap::new();
        for map in entered().filter(|map| only.is_none_or(|only| only == *map)) {
            dump.insert(map, entries(tables, map)?.into_iter().map(object).collect());
        }
        Ok(Self(dump))
    }

    /// Sorts each map by the column of that name.
    ///
    /// # Errors
    /// A map has no such column. One without entries has any.
    fn sort(&mut self, column: &str) -> Result<(), Failure> {
        for (map, entries) in &mut self.0 {
            let Some(first) = entries.first() else { continue };
            let Some(key) = first.keys().find(|key| column_name(key) == column).cloned() else {
                let names: Vec<String> = first.keys().map(|key| column_name(key)).collect();
                let message = format!("{map} has no column {column}; it has {}", names.join(", "));
                return Err(Failure::new(Code::NoSuchColumn, message));
            };
            entries.sort_by_cached_key(|entry| entry.get(&key).map_or(Key::Missing, key_of));
        }
        Ok(())
    }
}

/// As columns of other tables are named.
fn column_name(key: &str) -> String {
    key.replace('_', "-")
}

fn key_of(value: &Value) -> Key {
    match value {
        Value::Null => Key::Missing,
        Value::Number(number) => Key::of(number.as_u64(), Key::amount),
        Value::String(text) => text.parse().map_or_else(|_| Key::text(text), Key::Address),
        other => Key::text(word(other)),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn entries(tables: &Tables, map: &str) -> anyhow::Result<Vec<Value>> {
    Ok(match map {
        PEERS => tables.raw_peers()?.into_iter().map(|(subnet, entry)| peer(subnet, &entry)).collect(),
        SOURCES => {
            let source = |(address, subnets)| json!({"address": address, "subnets": subnets});
            tables.sources()?.into_iter().map(source).collect()
        }
        COUNTERS => Counts::read(tables)?
            .iter()
            .filter(|(_, _, count)| count.packets > 0)
            .map(|(hook, reason, count)| {
                let slot = hook.slot(*reason);
                json!({"slot": slot, "hook": hook.label(), "reason": reason.label(),
                       "packets": count.packets, "bytes": count.bytes})
            })
            .collect(),
        PEER_COUNTERS => {
            let mut counts = Vec::new();
            for subnet in tables.peers()?.keys() {
                let count = tables.peer_count(*subnet)?;
                // An entry is made with a peer's first packet.
                if count != PeerCount::default() {
                    counts.push(peer_count(*subnet, &count));
                }
            }
            counts
        }
        PORTS => {
            let port = |((bridge, mac), port): ((u32, flannel_common::Mac), u32)| json!({"bridge": Interface::new(bridge), "mac": mac.to_string(), "port": Interface::new(port)});
            tables.ports()?.into_iter().map(port).collect()
        }
        NODE_INFO => vec![node(&tables.node()?)],
        TRACE_FILTER => vec![trace_filter(&tables.trace_filter()?)],
        FLOWS => tables.flows()?.iter().map(|(key, known)| flow(key, known)).collect(),
        APPROVED => tables.approved()?.iter().map(|(connection, at)| approved(connection, *at)).collect(),
        GENERATION => vec![json!({"generation": tables.generation()?})],
        _ => Vec::new(),
    })
}

fn flow(key: &FlowKey, flow: &Flow) -> Value {
    let Flow { entered, left, in_stack, behind: _, contested } = flow;
    json!({
        "source": key.source.to_string(), "destination": key.destination.to_string(),
        "source_port": u16::from_be(key.source_port), "destination_port": u16::from_be(key.destination_port),
        "protocol": key.protocol, "dscp": key.dscp >> 2,
        "direction": if key.direction == Direction::Out as u16 { "out" } else { "in" },
        "entered_nanoseconds": entered.at, "short_until_nanoseconds": left.until,
        "entered_at": Interface::new(entered.interface),
        "left_at": (left.interface != 0).then(|| Interface::new(left.interface)),
        "generation": left.generation, "ttl": entered.ttl, "mtu": left.mtu, "packets": left.packets,
        "in_stack": in_stack, "contested_milliseconds": u64::from(*contested) * (1 << 20) / 1_000_000,
        "outer_source": entered.outer_source.to_string(),
        "onward": {
            "way": if left.onward.way == Way::Tunnel as u16 { "tunnel" }
                else if left.onward.way == Way::FormerTunnel as u16 { "former-tunnel" }
                else if left.onward.way == Way::Segmenter as u16 { "segmenter" } else { "plain" },
            "mac": left.onward.destination.to_string(), "from_mac": left.onward.source.to_string(),
            "public_ip": left.onward.public_ip.to_string(), "vtep_mac": left.onward.vtep_mac.to_string(),
        },
    })
}

fn approved(connection: &Connection, at: u64) -> Value {
    let end = |address: flannel_common::Ip4, port: u16| format!("{address}:{}", u16::from_be(port));
    json!({
        "one": end(connection.low, connection.low_port), "other": end(connection.high, connection.high_port),
        "since_nanoseconds": at,
    })
}

fn trace_filter(trace_filter: &TraceFilter) -> Value {
    let TraceFilter { until, reasons, hooks, every, address, arrivals } = trace_filter;
    json!({
        "until_nanoseconds": until, "reasons": reasons, "hooks": hooks, "every": every,
        "address": address.to_string(), "arrivals": *arrivals != 0,
    })
}

fn peer(subnet: Ipv4Addr, entry: &Peer) -> Value {
    let Peer { public_ip, vtep_mac, direct, vni, port, whole, next_hop } = entry;
    let NextHop { until, destination, source, generation, device, .. } = next_hop;
    json!({
        "subnet": subnet, "public_ip": public_ip.to_string(), "vtep_mac": vtep_mac.to_string(),
        "direct": *direct != 0, "vni": vni, "port": port, "whole_seconds": whole,
        "next_hop": {
            "interface": (*device != 0).then(|| Interface::new(*device)),
            "mac": destination.to_string(), "from_mac": source.to_string(), "until_ns": until, "generation": generation,
        },
    })
}

fn peer_count(subnet: Ipv4Addr, count: &PeerCount) -> Value {
    let PeerCount { sent, received, last_seen, last_former } = count;
    let of = |count: &Count| json!({"packets": count.packets, "bytes": count.bytes});
    json!({
        "subnet": subnet, "sent": of(sent), "received": of(received), "last_seen_nanoseconds": last_seen,
        "last_former_nanoseconds": last_former,
    })
}

fn node(node: &maps::Node) -> Value {
    let guard = maps::Guard::ALL.iter().find(|guard| **guard as u32 == node.guard);
    json!({
        "backend": backend::Kind::from_number(node.backend).map_or("unknown", backend::Kind::name),
        "device": (node.device != 0).then(|| Interface::new(node.device)),
        "underlay": Interface::new(node.underlay),
        "segmenter": (node.segmenter != 0).then(|| Interface::new(node.segmenter)),
        "local_ip": node.local_ip.to_string(),
        "subnet": node.subnet.to_string(),
        "netmask": node.netmask.to_string(),
        "vni": node.vni,
        "port": node.port,
        "former_vni": node.former_vni,
        "former_port": node.former_port,
        "former_device": (node.former_device != 0).then(|| Interface::new(node.former_device)),
        "guard": guard.map_or("unknown", |guard| guard.label()),
        "bypass": match node.bypass { 0 => "off", 1 => "flow", 2 => "direct", _ => "unknown" },
        "copy_dscp": node.copied_tos == maps::Node::DSCP, "flow_seed": node.flow_seed, "outer_mtu": node.outer_mtu,
        "vrf": (node.vrf != 0).then(|| Interface::new(node.vrf)),
        "device_mac": node.device_mac.to_string(),
    })
}

impl Report for Dump {
    fn show(&self, page: &mut Page) {
        for (map, entries) in &self.0 {
            page.heading(&format!("{map}: {}", units::count(entries.len(), "entry", "entries")));
            let Some(first) = entries.first() else { continue };
            let names: Vec<String> = first.keys().map(|key| key.to_uppercase().replace('_', " ")).collect();
            let headers = names.iter().map(|name| Header { name, alignment: CellAlignment::Left });
            let rows = entries.iter().map(|entry| entry.values().map(|value| cell(word(value))).collect());
            page.columns(&headers.collect::<Vec<_>>(), rows);
        }
    }
}

/// A value in one word.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Object(object) => {
            let words: Vec<String> =
                object.iter().map(|(key, value)| format!("{key}={}", word(value))).collect();
            words.join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flannel_common::maps::{NextHop, Peer};
    use flannel_common::{Ip4, Mac};

    use serde_json::json;

    use super::{Dump, name, object, peer};
    use crate::output::Report as _;

    #[test]
    fn entries_in_words() {
        let entry = Peer {
            public_ip: Ip4::from_octets([192, 168, 77, 12]),
            vtep_mac: Mac([2, 0, 0, 0, 0, 1]),
            direct: 0,
            vni: 1,
            port: 8472,
            whole: 7,
            next_hop: NextHop {
                until: 9,
                destination: Mac([2, 0, 0, 0, 0, 2]),
                source: Mac([2, 0, 0, 0, 0, 3]),
                generation: 4,
                ..NextHop::UNKNOWN
            },
        };
        let peers = vec![object(peer([10, 5, 2, 0].into(), &entry))];
        let dump = Dump(BTreeMap::from([("PEERS", peers), ("SOURCES", Vec::new())]));
        assert_eq!(
            dump.text(),
            "PEERS: 1 entry
 DIRECT  NEXT HOP                                                                              PORT  PUBLIC IP      SUBNET    VNI  VTEP MAC           WHOLE SECONDS
 false   from_mac=02:00:00:00:00:03,generation=4,interface=-,mac=02:00:00:00:00:02,until_ns=9  8472  192.168.77.12  10.5.2.0  1    02:00:00:00:00:01  7

SOURCES: 0 entries
"
        );
        assert_eq!(
            serde_json::to_string(&dump).unwrap(),
            r#"{"PEERS":[{"direct":false,"next_hop":{"from_mac":"02:00:00:00:00:03","generation":4,"interface":null,"mac":"02:00:00:00:00:02","until_ns":9},"port":8472,"public_ip":"192.168.77.12","subnet":"10.5.2.0","vni":1,"vtep_mac":"02:00:00:00:00:01","whole_seconds":7}],"SOURCES":[]}"#
        );
    }

    #[test]
    fn entries_are_sorted_by_what_they_hold() {
        let entry = |address: &str, subnets: u32| object(json!({"address": address, "subnets": subnets}));
        let sources = vec![entry("192.168.77.9", 1), entry("192.168.77.10", 3)];
        let mut dump = Dump(BTreeMap::from([("SOURCES", sources), ("PEERS", Vec::new())]));
        let first = |dump: &Dump| dump.0["SOURCES"][0]["address"].clone();
        dump.sort("subnets").unwrap();
        assert_eq!(first(&dump), "192.168.77.10");
        dump.sort("address").unwrap();
        assert_eq!(first(&dump), "192.168.77.9");
        let error = dump.sort("size").unwrap_err().to_string();
        assert_eq!(error, "SOURCES has no column size; it has address, subnets");
    }

    #[test]
    fn maps_are_known_by_name_in_either_case() {
        assert_eq!(name("peers"), Ok("PEERS"));
        assert!(name("nothing").unwrap_err().contains("PEER_COUNTERS"));
    }
}
