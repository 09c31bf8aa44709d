//! The maps, typed. Opened from their pins, with or without a daemon.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use flannel_common::flow::{Connection, Flow, FlowKey, KnownFlow};
use flannel_common::maps::{
    APPROVED, COUNTERS, Count, FLOWS, GENERATION, NODE_INFO, Node, PEER_COUNTERS, PEERS, PORTS, Peer,
    PeerCount, Port, SOURCES, TRACE_FILTER,
};
use flannel_common::trace::TraceFilter;
use flannel_common::{Hook, Ip4, Mac, Reason};

use super::{DatapathError, map_path, sys};

/// A peer as the programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// Where its packets go.
    pub public_ip: Ipv4Addr,
    /// Ethernet address of its VTEP; zero with the UDP backend.
    pub vtep_mac: Mac,
    /// Whether a route leads straight to the peer, so that no program sees its packets.
    pub direct: bool,
    /// Network identifier and UDP port of packets to it, with VXLAN.
    pub format: Option<(u32, u16)>,
}

impl From<Peer> for PeerEntry {
    fn from(peer: Peer) -> Self {
        let Peer { public_ip, vtep_mac, direct, vni, port, .. } = peer;
        let port = u16::try_from(port).ok().filter(|port| *port != 0);
        let format = port.map(|port| (vni, port));
        Self { public_ip: public_ip.into(), vtep_mac, direct: direct != 0, format }
    }
}

impl From<PeerEntry> for Peer {
    fn from(entry: PeerEntry) -> Self {
        let PeerEntry { public_ip, vtep_mac, direct, format } = entry;
        let (vni, port) = format.map_or((0, 0), |(vni, port)| (vni, port.into()));
        // What the programs learned of the former peer need not hold for this one.
        Self { public_ip: public_ip.into(), vtep_mac, direct: direct.into(), vni, port, ..Self::default() }
    }
}

/// The maps of one network on this host.
pub struct Tables {
    peers: HashMap<MapData, Ip4, Peer>,
    sources: HashMap<MapData, Ip4, u32>,
    counters: PerCpuArray<MapData, Count>,
    peer_counters: PerCpuHashMap<MapData, Ip4, PeerCount>,
    ports: HashMap<MapData, Port, u32>,
    node: Array<MapData, Node>,
    generation: Array<MapData, u32>,
    flows: Array<MapData, KnownFlow>,
    approved: HashMap<MapData, Connection, u64>,
    trace_filter: Array<MapData, TraceFilter>,
}

impl Tables {
    /// Opens the maps pinned below `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        Self::open_by(pin_dir, |path| MapData::from_pin(path))
    }

    /// The same, read-only: the kernel refuses to change them.
    pub fn open_to_read(pin_dir: &Path) -> Result<Self, DatapathError> {
        Self::open_by(pin_dir, |path| {
            MapData::from_fd(sys::open_for_reading(path).map_err(MapError::IoError)?)
        })
    }

    fn open_by(pin_dir: &Path, by: Opening) -> Result<Self, DatapathError> {
        Ok(Self {
            peers: open(pin_dir, PEERS, by)?,
            sources: open(pin_dir, SOURCES, by)?,
            counters: open(pin_dir, COUNTERS, by)?,
            peer_counters: open(pin_dir, PEER_COUNTERS, by)?,
            ports: open(pin_dir, PORTS, by)?,
            node: open(pin_dir, NODE_INFO, by)?,
            generation: open(pin_dir, GENERATION, by)?,
            flows: open(pin_dir, FLOWS, by)?,
            approved: open(pin_dir, APPROVED, by)?,
            trace_filter: open(pin_dir, TRACE_FILTER, by)?,
        })
    }

    /// What the programs know of this host.
    pub fn node(&self) -> Result<Node, DatapathError> {
        self.node.get(&0, 0).map_err(failed("read", NODE_INFO))
    }

    /// Which packets programs report.
    pub fn trace_filter(&self) -> Result<TraceFilter, DatapathError> {
        self.trace_filter.get(&0, 0).map_err(failed("read", TRACE_FILTER))
    }

    /// Writes what the programs know, for readers of the pins.
    pub fn put_node(&mut self, node: Node) -> Result<(), DatapathError> {
        self.node.set(0, node, 0).map_err(failed("write", NODE_INFO))
    }

    /// A number; a change of it invalidates what was learned of flows.
    pub fn generation(&self) -> Result<u32, DatapathError> {
        self.generation.get(&0, 0).map_err(failed("read", GENERATION))
    }

    /// What is learned of flows.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let places: Vec<KnownFlow> =
            self.flows.iter().collect::<Result<_, _>>().map_err(failed("read", FLOWS))?;
        let taken = places.into_iter().filter(|known| known.key != FlowKey::default());
        Ok(taken.map(|KnownFlow { key, flow }| (key, flow)).collect())
    }

    /// The connections that can bypass the stack, and since when, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn approved(&self) -> Result<Vec<(Connection, u64)>, DatapathError> {
        self.approved.iter().map(|entry| entry.map_err(failed("read", APPROVED))).collect()
    }

    /// Invalidates what was learned of flows, because something changed that they depend on.
    pub fn begin_generation(&mut self) -> Result<(), DatapathError> {
        let generation = self.generation()?;
        self.generation.set(0, generation.wrapping_add(1), 0).map_err(failed("write", GENERATION))
    }

    /// Every peer by the first address of its subnet.
    pub fn peers(&self) -> Result<BTreeMap<Ipv4Addr, PeerEntry>, DatapathError> {
        self.peers
            .iter()
            .map(|entry| {
                let (subnet, peer) = entry.map_err(failed("read", PEERS))?;
                Ok((subnet.into(), peer.into()))
            })
            .collect()
    }

    /// The same as the programs see them, with what they have learned.
    pub fn raw_peers(&self) -> Result<BTreeMap<Ipv4Addr, Peer>, DatapathError> {
        let entries = self.peers.iter().map(|entry| entry.map(|(subnet, peer)| (subnet.into(), peer)));
        entries.collect::<Result<_, MapError>>().map_err(failed("read", PEERS))
    }

    /// Makes `entry` the peer of the subnet with this first address.
    pub fn put_peer(&mut self, subnet: Ipv4Addr, entry: PeerEntry) -> Result<(), DatapathError> {
        let before = self.peer(subnet)?;
        if before == Some(entry) {
            return Ok(());
        }
        let key = Ip4::from(subnet);
        // The source is there before the first packet of the peer can be. The programs make its counters.
        if before.map(|before| before.public_ip) != Some(entry.public_ip) {
            self.add_source(entry.public_ip)?;
        }
        self.peers.insert(key, Peer::from(entry), 0).map_err(failed("write", PEERS))?;
        match before {
            Some(before) if before.public_ip != entry.public_ip => self.remove_source(before.public_ip),
            _ => Ok(()),
        }
    }

    /// Forgets the peer of the subnet with this first address, with its counters, unless it is another one
    /// than `entry`.
    pub fn remove_peer(&mut self, subnet: Ipv4Addr, entry: PeerEntry) -> Result<(), DatapathError> {
        if self.peer(subnet)? != Some(entry) {
            return Ok(());
        }
        let key = Ip4::from(subnet);
        ignore_absent(self.peers.remove(&key)).map_err(failed("write", PEERS))?;
        self.remove_source(entry.public_ip)?;
        ignore_absent(self.peer_counters.remove(&key)).map_err(failed("write", PEER_COUNTERS))
    }

    /// The peer of the subnet with this first address.
    pub fn peer(&self, subnet: Ipv4Addr) -> Result<Option<PeerEntry>, DatapathError> {
        let found = present(self.peers.get(&subnet.into(), 0)).map_err(failed("read", PEERS))?;
        Ok(found.map(PeerEntry::from))
    }

    /// A host can hold several subnets: its address is a source until the last one is gone.
    fn add_source(&mut self, address: Ipv4Addr) -> Result<(), DatapathError> {
        let count = self.source(address)?.saturating_add(1);
        self.sources.insert(Ip4::from(address), count, 0).map_err(failed("write", SOURCES))
    }

    fn remove_source(&mut self, address: Ipv4Addr) -> Result<(), DatapathError> {
        let key = Ip4::from(address);
        match self.source(address)? {
            0 | 1 => ignore_absent(self.sources.remove(&key)).map_err(failed("write", SOURCES)),
            count => self.sources.insert(key, count - 1, 0).map_err(failed("write", SOURCES)),
        }
    }

    /// How many subnets each outer source leases.
    pub fn sources(&self) -> Result<BTreeMap<Ipv4Addr, u32>, DatapathError> {
        let entries = self.sources.iter().map(|entry| entry.map(|(address, count)| (address.into(), count)));
        entries.collect::<Result<_, MapError>>().map_err(failed("read", SOURCES))
    }

    /// The index of the port behind which each pod lives, by the bridge's index and the pod's address.
    pub fn ports(&self) -> Result<BTreeMap<(u32, Mac), u32>, DatapathError> {
        let entries = self.ports.iter().map(|entry| entry.map(|(at, port)| ((at.bridge, at.mac), port)));
        entries.collect::<Result<_, MapError>>().map_err(failed("read", PORTS))
    }

    fn source(&self, address: Ipv4Addr) -> Result<u32, DatapathError> {
        let found = present(self.sources.get(&address.into(), 0)).map_err(failed("read", SOURCES))?;
        Ok(found.unwrap_or(0))
    }

    /// Makes sources and counters exactly those of `peers`. A daemon killed between two writes may have left one too
    /// many, and so may a packet in flight when its peer was removed.
    pub fn correct_by(&mut self, peers: &BTreeMap<Ipv4Addr, PeerEntry>) -> Result<(), DatapathError> {
        self.correct_sources(peers)?;
        let counted: Result<Vec<Ip4>, MapError> = self.peer_counters.keys().collect();
        for subnet in counted.map_err(failed("read", PEER_COUNTERS))? {
            if !peers.contains_key(&subnet.into()) {
                ignore_absent(self.peer_counters.remove(&subnet)).map_err(failed("write", PEER_COUNTERS))?;
            }
        }
        Ok(())
    }

    fn correct_sources(&mut self, peers: &BTreeMap<Ipv4Addr, PeerEntry>) -> Result<(), DatapathError> {
        let mut wanted = BTreeMap::<Ipv4Addr, u32>::new();
        for peer in peers.values() {
            *wanted.entry(peer.public_ip).or_default() += 1;
        }
        let found = self.sources()?;
        for (address, count) in &wanted {
            if found.get(address) != Some(count) {
                self.sources.insert(Ip4::from(*address), count, 0).map_err(failed("write", SOURCES))?;
            }
        }
        for address in found.keys().filter(|address| !wanted.contains_key(address)) {
            ignore_absent(self.sources.remove(&Ip4::from(*address))).map_err(failed("write", SOURCES))?;
        }
        Ok(())
    }

    /// The count at `hook` for `reason`, over all CPUs.
    pub fn count(&self, hook: Hook, reason: Reason) -> Result<Count, DatapathError> {
        let per_cpu = self.counters.get(&hook.slot(reason), 0).map_err(failed("read", COUNTERS))?;
        Ok(per_cpu.iter().fold(Count::default(), |sum, count| add(sum, *count)))
    }

    /// What was forwarded to and from the peer of the subnet with this first address, over all CPUs.
    pub fn peer_count(&self, subnet: Ipv4Addr) -> Result<PeerCount, DatapathError> {
        let found =
            present(self.peer_counters.get(&subnet.into(), 0)).map_err(failed("read", PEER_COUNTERS))?;
        let sum = |sum: PeerCount, count: &PeerCount| PeerCount {
            sent: add(sum.sent, count.sent),
            received: add(sum.received, count.received),
            last_seen: sum.last_seen.max(count.last_seen),
            last_former: sum.last_former.max(count.last_former),
        };
        Ok(found.map(|per_cpu| per_cpu.iter().fold(PeerCount::default(), sum)).unwrap_or_default())
    }

    /// The same of every peer of which packets were counted.
    pub fn peer_counts(&self) -> Result<BTreeMap<Ipv4Addr, PeerCount>, DatapathError> {
        let subnets: Result<Vec<Ip4>, MapError> = self.peer_counters.keys().collect();
        let subnets = subnets.map_err(failed("read", PEER_COUNTERS))?.into_iter().map(Ipv4Addr::from);
        subnets.map(|subnet| Ok((subnet, self.peer_count(subnet)?))).collect()
    }

    /// How many entries each map has that is filled as peers and pods come.
    pub fn entries(&self) -> Result<[(&'static str, usize); 4], DatapathError> {
        Ok([
            (PEERS, count(self.peers.keys(), PEERS)?),
            (SOURCES, count(self.sources.keys(), SOURCES)?),
            (PEER_COUNTERS, count(self.peer_counters.keys(), PEER_COUNTERS)?),
            (PORTS, count(self.ports.keys(), PORTS)?),
        ])
    }

    /// Makes `ports`, by bridge and Ethernet address of the pod, the known ones.
    pub fn set_ports(&mut self, ports: &BTreeMap<(u32, Mac), u32>) -> Result<(), DatapathError> {
        let found = self.ports()?;
        let key = |&(bridge, mac): &(u32, Mac)| Port { bridge, mac, reserved: 0 };
        for (pod, port) in ports.iter().filter(|(pod, port)| found.get(pod) != Some(port)) {
            self.ports.insert(key(pod), port, 0).map_err(failed("write", PORTS))?;
        }
        for pod in found.keys().filter(|pod| !ports.contains_key(pod)) {
            ignore_absent(self.ports.remove(&key(pod))).map_err(failed("write", PORTS))?;
        }
        Ok(())
    }
}

/// Opens the map pinned at a path.
pub(super) type Opening = fn(&Path) -> Result<MapData, MapError>;

pub(super) fn open<T>(pin_dir: &Path, name: &'static str, by: Opening) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = map_path(pin_dir, name);
    by(&path)
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(|source| DatapathError::OpenMap { path, source })
}

pub(super) fn failed(operation: &'static str, map: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| DatapathError::Map { operation, map, source }
}

fn count<K>(
    mut keys: impl Iterator<Item = Result<K, MapError>>,
    map: &'static str,
) -> Result<usize, DatapathError> {
    keys.try_fold(0, |count, key| key.map(|_| count + 1)).map_err(failed("read", map))
}

fn present<T>(found: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn ignore_absent(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        done => done,
    }
}

const fn add(a: Count, b: Count) -> Count {
    Count { packets: a.packets.wrapping_add(b.packets), bytes: a.bytes.wrapping_add(b.bytes) }
}
