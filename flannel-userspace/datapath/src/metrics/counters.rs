//! What the programs count, read from the pinned maps at each scrape.

use std::fmt;
use std::net::Ipv4Addr;

use flannel_common::maps::{self, Count, Guard, Node, PEERS, Peer, PeerCount};
use flannel_common::{Hook, Reason, Verdict};
use flannel_model::backend::Kind;
use flannel_observe::{Source, Writer};
use ipnetwork::Ipv4Network;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::DatapathSource;
use crate::{DatapathError, Tables, interface_name, monotonic_nanoseconds};

/// Reads the maps at each scrape.
#[derive(Debug)]
pub(super) struct CounterCollector {
    source: DatapathSource,
    reads: Source,
}

impl CounterCollector {
    pub(super) const fn new(source: DatapathSource, reads: Source) -> Self {
        Self { source, reads }
    }
}

impl Collector for CounterCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Everything is read before anything is written: a scrape has all of it or none.
        match self.reads.read(Reading::take(&self.source)) {
            Some(reading) => reading.encode(&mut Writer(encoder)),
            None => Ok(()),
        }
    }
}

/// What the maps held at one moment.
struct Reading {
    node: Node,
    counts: Vec<(Hook, Reason, Count)>,
    peers: Vec<(Ipv4Addr, Peer, PeerCount)>,
    /// Whether a trace or capture runs.
    is_asked: bool,
    /// Name, entries and capacity of each map that fills.
    maps: Vec<(&'static str, u64, u64)>,
    /// When, by the clock of the programs' time stamps.
    now: u64,
}

impl Reading {
    fn take(source: &DatapathSource) -> Result<Self, DatapathError> {
        let tables = Tables::open(&source.pin_dir)?;
        let slots = Hook::ALL.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| (*hook, *reason)));
        let counts = slots.map(|(hook, reason)| Ok((hook, reason, tables.count(hook, reason)?)));
        let entries = tables.entries()?;
        let known = entries.iter().find(|(map, _)| *map == PEERS).map_or(0, |(_, entries)| *entries);
        let peers = if source.per_peer.is_on(known) { tables.raw_peers()? } else { Default::default() };
        let peers = peers.into_iter().map(|(subnet, peer)| Ok((subnet, peer, tables.peer_count(subnet)?)));
        let now = monotonic_nanoseconds();
        Ok(Self {
            node: tables.node()?,
            counts: counts.collect::<Result<_, DatapathError>>()?,
            peers: peers.collect::<Result<_, DatapathError>>()?,
            maps: entries.iter().filter_map(|(map, entries)| filled(map, *entries)).collect(),
            is_asked: tables.trace_filter()?.until > now,
            now,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mode = Kind::from_number(self.node.backend).map_or("unknown", Kind::name);
        let guard = Guard::ALL.iter().find(|guard| **guard as u32 == self.node.guard);
        let info = [
            ("mode", "ebpf".to_owned()),
            ("backend", mode.to_owned()),
            ("guard", guard.map_or("unknown", |guard| guard.label()).to_owned()),
            ("vni", self.node.vni.to_string()),
            ("port", self.node.port.to_string()),
            ("local_ip", self.node.local_ip.to_string()),
            ("subnet", self.name(self.node.subnet.into())),
            ("underlay", name_of(self.node.underlay)),
            ("device", name_of(self.node.device)),
        ];
        writer.info("datapath", "What forwards, and what the programs know of this host.", [info])?;
        let asked = std::iter::once(([("", ""); 0], u64::from(self.is_asked)));
        writer.gauges("trace_running", "1 while a trace or capture runs.", asked)?;
        self.encode_counts(writer, mode)?;
        self.encode_maps(writer)?;
        self.encode_peers(writer)
    }

    fn encode_counts(&self, writer: &mut Writer<'_>, mode: &'static str) -> fmt::Result {
        let of = |verdict| self.counts.iter().filter(move |(_, reason, _)| reason.verdict() == verdict);
        let labels = |hook: Hook, reason: Reason| {
            [("hook", hook.label()), ("direction", direction(hook)), ("reason", reason.label())]
        };
        let forwarded = |value: fn(&Count) -> u64| {
            of(Verdict::Forward).map(move |(hook, reason, count)| {
                let [hook, direction, reason] = labels(*hook, *reason);
                ([hook, direction, ("mode", mode), reason], value(count))
            })
        };
        let dropped = |value: fn(&Count) -> u64| {
            of(Verdict::Drop).map(move |(hook, reason, count)| (labels(*hook, *reason), value(count)))
        };
        // Passed packets belong to others, and most pairs of hook and reason never occur: each series appears with its
        // first packet.
        let passed = |value: fn(&Count) -> u64| {
            of(Verdict::Pass)
                .filter(|(_, _, count)| count.packets > 0)
                .map(move |(hook, reason, count)| (labels(*hook, *reason), value(count)))
        };
        writer.counters("forward_packets", "Packets a program forwarded.", forwarded(packets))?;
        writer.counters("forward_bytes", "Bytes of the packets a program forwarded.", forwarded(bytes))?;
        writer.counters("drop_packets", "Packets a program dropped, by reason.", dropped(packets))?;
        writer.counters("drop_bytes", "Bytes of the packets a program dropped.", dropped(bytes))?;
        writer.counters("pass_packets", "Packets a program left to the stack.", passed(packets))?;
        writer.counters("pass_bytes", "Bytes of the packets a program left to the stack.", passed(bytes))
    }

    fn encode_maps(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let maps = || self.maps.iter().map(|(map, entries, capacity)| ([("map", *map)], *entries, *capacity));
        let entries = maps().map(|(map, entries, _)| (map, entries));
        writer.gauges("bpf_map_entries", "Entries of a map.", entries)?;
        let capacities = maps().map(|(map, _, capacity)| (map, capacity));
        writer.gauges("bpf_map_capacity", "Entries a map has room for.", capacities)?;
        let ratios = maps().map(|(map, entries, capacity)| (map, entries as f64 / capacity as f64));
        writer.gauges("bpf_map_pressure_ratio", "How full a map is, from 0 to 1.", ratios)
    }

    fn encode_peers(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let counts = |value: fn(&PeerCount) -> u64| {
            self.peers.iter().map(move |(subnet, _, count)| ([("peer", self.name(*subnet))], value(count)))
        };
        writer.counters("peer_tx_packets", "Packets sent to a peer.", counts(|count| count.sent.packets))?;
        writer.counters("peer_tx_bytes", "Bytes sent to a peer.", counts(|count| count.sent.bytes))?;
        writer.counters(
            "peer_rx_packets",
            "Packets from a peer that the guard let in.",
            counts(|count| count.received.packets),
        )?;
        writer.counters(
            "peer_rx_bytes",
            "Bytes from a peer that the guard let in.",
            counts(|count| count.received.bytes),
        )?;
        let seen = self.peers.iter().filter(|(_, _, count)| count.last_seen != 0);
        let ago = seen.map(|(subnet, _, count)| {
            ([("peer", self.name(*subnet))], self.now.saturating_sub(count.last_seen) as f64 / 1e9)
        });
        writer.gauges(
            "peer_last_seen_seconds",
            "Seconds since the last packet from a peer; absent before the first one.",
            ago,
        )?;
        // Only programs of this backend learn it.
        let is_learned = self.node.backend == Kind::Udp.number();
        let seconds = u32::try_from(self.now / 1_000_000_000).unwrap_or(u32::MAX);
        let tunnels = self.peers.iter().filter(|(_, peer, _)| is_learned && peer.direct == 0);
        let whole = tunnels
            .map(|(subnet, peer, _)| ([("peer", self.name(*subnet))], u64::from(peer.accepts_gso(seconds))));
        writer.gauges(
            "peer_whole",
            "1 while a peer of the udp backend takes super-packets whole; a stock daemon does not.",
            whole,
        )?;
        let infos = self.peers.iter().map(|(subnet, peer, _)| {
            let path = if peer.direct != 0 { "direct" } else { "tunnel" };
            let mac = peer.vtep_mac.is_unicast().then(|| peer.vtep_mac.to_string());
            [
                ("peer", self.name(*subnet)),
                ("public_ip", peer.public_ip.to_string()),
                ("path", path.to_owned()),
                ("vtep_mac", mac.unwrap_or_default()),
            ]
        });
        writer.info("peer", "Where a peer is reached; no program sees packets on a direct path.", infos)
    }

    /// The subnet of the peer.
    fn name(&self, subnet: Ipv4Addr) -> String {
        Ipv4Network::with_netmask(subnet, self.node.netmask.into())
            .map_or_else(|_| subnet.to_string(), |subnet| subnet.to_string())
    }
}

/// The name of an interface; empty if there is none with that index.
fn name_of(interface: u32) -> String {
    interface_name(interface).unwrap_or_default()
}

/// The direction of packets at this hook.
const fn direction(hook: Hook) -> &'static str {
    match hook {
        Hook::Encap | Hook::Segmented | Hook::PodOut | Hook::DirectOut => "out",
        Hook::Decap | Hook::Xdp | Hook::Device | Hook::Bridge | Hook::PodIn | Hook::DirectIn => "in",
    }
}

const fn packets(count: &Count) -> u64 {
    count.packets
}

const fn bytes(count: &Count) -> u64 {
    count.bytes
}

fn filled(map: &'static str, entries: usize) -> Option<(&'static str, u64, u64)> {
    let layout = maps::ALL.iter().find(|layout| layout.name == map)?;
    Some((map, entries as u64, layout.max_entries.into()))
}
