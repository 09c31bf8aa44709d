//! What `flannelctl` shows, as tables and as JSON. The JSON field names are a stable interface.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use flannel_common::maps::{Count, Guard, PeerCount};
use flannel_common::{Hook, Ip4, Reason, Verdict};
use ipnetwork::Ipv4Network;
use nix::net::if_::if_indextoname;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::backend::Kind;
use crate::datapath::{DatapathError, PeerEntry, Tables};

/// Something that can be shown to people.
pub trait Report {
    /// As columns.
    fn table(&self) -> String;
}

/// This host's part of the network.
#[derive(Debug, Serialize)]
pub struct Status {
    backend: &'static str,
    subnet: Option<Ipv4Network>,
    public_interface: Interface,
    address: Ipv4Addr,
    device: Option<Interface>,
    vni: Option<u32>,
    port: Option<u32>,
    guard: &'static str,
    peers: usize,
    links: Vec<String>,
    pin_dir: PathBuf,
}

/// A network interface by the index the programs know; the name is missing where there is none with it.
#[derive(Debug, Serialize)]
struct Interface {
    index: u32,
    name: Option<String>,
}

impl Interface {
    fn new(index: u32) -> Self {
        let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        Self { index, name }
    }

    fn text(&self) -> String {
        let name = self.name.as_deref().unwrap_or("gone");
        format!("{name} (index {})", self.index)
    }
}

impl Status {
    /// Reads the maps, and which programs `pin_dir` tells to be attached.
    pub fn read(tables: &Tables, pin_dir: &Path) -> Result<Self, DatapathError> {
        let node = tables.node()?;
        let backend = Kind::from_number(node.backend);
        let guard = Guard::ALL.iter().find(|guard| **guard as u32 == node.guard);
        Ok(Self {
            backend: backend.map_or("unknown", Kind::name),
            subnet: network(node.subnet, node.netmask),
            public_interface: Interface::new(node.underlay),
            address: node.local_ip.into(),
            device: (node.device != 0).then(|| Interface::new(node.device)),
            vni: (backend == Some(Kind::Vxlan)).then_some(node.vni),
            port: (node.port != 0).then_some(node.port),
            guard: guard.map_or("unknown", |guard| guard.label()),
            peers: tables.peers()?.len(),
            links: attached(pin_dir),
            pin_dir: pin_dir.to_owned(),
        })
    }
}

fn network(address: Ip4, netmask: Ip4) -> Option<Ipv4Network> {
    Ipv4Network::with_netmask(address.into(), netmask.into()).ok()
}

/// The programs in their places: TCX and XDP links, and filters under clsact.
fn attached(pin_dir: &Path) -> Vec<String> {
    let names = |directory| fs::read_dir(pin_dir.join(directory)).into_iter().flatten().flatten();
    let mut names: Vec<String> = ["links", "filters"]
        .into_iter()
        .flat_map(names)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

impl Report for Status {
    fn table(&self) -> String {
        let mut table = plain();
        let number = |value: Option<u32>| value.map_or_else(dash, |value| value.to_string());
        table.add_row(["backend", self.backend]);
        table.add_row(["subnet", &self.subnet.map_or_else(dash, |subnet| subnet.to_string())]);
        table.add_row(["underlay", &format!("{}, {}", self.public_interface.text(), self.address)]);
        table.add_row(["device", &self.device.as_ref().map_or_else(dash, Interface::text)]);
        table.add_row(["VNI", &number(self.vni)]);
        table.add_row(["port", &number(self.port)]);
        table.add_row(["guard", self.guard]);
        table.add_row(["peers", &self.peers.to_string()]);
        table.add_row(["links", &self.links.join(" ")]);
        table.add_row(["pins", &self.pin_dir.display().to_string()]);
        table.trim_fmt()
    }
}

/// The peers.
#[derive(Debug, Serialize)]
pub struct Peers {
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
}

impl Peers {
    /// Reads the maps.
    pub fn read(tables: &Tables) -> Result<Self, DatapathError> {
        let netmask = tables.node()?.netmask;
        let now = monotonic_nanoseconds();
        let peers = tables.peers()?.into_iter().map(|(subnet, entry)| {
            let count = tables.peer_count(subnet)?;
            Ok(Peer::new(network(subnet.into(), netmask), &entry, &count, now))
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
        }
    }
}

/// The clock of the programs' time stamps.
fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Report for Peers {
    fn table(&self) -> String {
        let mut table = plain();
        table.set_header([
            "SUBNET",
            "PUBLIC IP",
            "VTEP",
            "PATH",
            "SENT",
            "BYTES",
            "RECEIVED",
            "BYTES",
            "LAST SEEN",
        ]);
        align_numbers(&mut table, 4..8);
        for peer in &self.peers {
            table.add_row([
                peer.subnet.map_or_else(dash, |subnet| subnet.to_string()),
                peer.public_ip.to_string(),
                peer.vtep_mac.clone().unwrap_or_else(dash),
                peer.path.to_owned(),
                peer.sent_packets.to_string(),
                peer.sent_bytes.to_string(),
                peer.received_packets.to_string(),
                peer.received_bytes.to_string(),
                peer.last_seen_seconds.map_or_else(|| "never".to_owned(), |ago| format!("{ago} s ago")),
            ]);
        }
        table.trim_fmt()
    }
}

/// What became of the packets.
#[derive(Debug, Serialize)]
pub struct Counters {
    counters: Vec<Counter>,
}

#[derive(Debug, Serialize)]
struct Counter {
    hook: &'static str,
    verdict: &'static str,
    reason: &'static str,
    packets: u64,
    bytes: u64,
    help: &'static str,
}

impl Counters {
    /// Reads the maps; `all` asks for reasons nothing was counted under, too.
    pub fn read(tables: &Tables, all: bool) -> Result<Self, DatapathError> {
        let mut counters = Vec::new();
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let count = tables.count(*hook, *reason)?;
                if all || count.packets > 0 {
                    counters.push(Counter::new(*hook, *reason, count));
                }
            }
        }
        Ok(Self { counters })
    }
}

impl Counter {
    const fn new(hook: Hook, reason: Reason, count: Count) -> Self {
        let verdict: Verdict = reason.verdict();
        Self {
            hook: hook.label(),
            verdict: verdict.label(),
            reason: reason.label(),
            packets: count.packets,
            bytes: count.bytes,
            help: reason.help(),
        }
    }
}

impl Report for Counters {
    fn table(&self) -> String {
        let mut table = plain();
        table.set_header(["HOOK", "VERDICT", "REASON", "PACKETS", "BYTES", ""]);
        align_numbers(&mut table, 3..5);
        for counter in &self.counters {
            table.add_row([
                counter.hook.to_owned(),
                counter.verdict.to_owned(),
                counter.reason.to_owned(),
                counter.packets.to_string(),
                counter.bytes.to_string(),
                counter.help.to_owned(),
            ]);
        }
        table.trim_fmt()
    }
}

/// What was taken away.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// One line for each thing.
    pub removed: Vec<String>,
}

impl Report for Removed {
    fn table(&self) -> String {
        if self.removed.is_empty() {
            return "nothing is here to take away".to_owned();
        }
        self.removed.iter().map(|thing| format!("removed {thing}")).collect::<Vec<_>>().join("\n")
    }
}

/// Columns without lines, which cut and awk like as well as people do.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn align_numbers(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}
