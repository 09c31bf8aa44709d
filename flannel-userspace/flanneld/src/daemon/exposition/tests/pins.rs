use std::collections::BTreeSet;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use flannel_common::maps::{COUNTERS, Count, Guard, Node, PEER_COUNTERS, PeerCount, TRACE_FILTER};
use flannel_common::trace::TraceFilter;
use flannel_common::{Hook, Ip4, Mac, Reason};
use flannel_datapath::{Arrival, Datapath, HookChoice, PeerEntry, PinDir, ProgramSettings, Spec};
use flannel_model::backend::Kind;

/// The maps of a host with the subnet 10.5.1.0/24, pinned in a directory of its own. No program is attached.
pub(super) struct Pins {
    path: PathBuf,
    datapath: Datapath,
}

impl Pins {
    pub(super) fn new() -> Self {
        Self::of(Kind::Vxlan)
    }

    pub(super) fn of(kind: Kind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/sys/fs/bpf/flannel-observe-{}-{number}", std::process::id()));
        let node = Node {
            backend: kind.number(),
            local_ip: Ipv4Addr::new(192, 168, 77, 11).into(),
            subnet: Ipv4Addr::new(10, 5, 1, 0).into(),
            netmask: Ip4::netmask(24),
            vni: 1,
            port: 8472,
            guard: Guard::Strict as u32,
            ..Node::UNSET
        };
        let pins = Arc::new(PinDir::open(&path).unwrap());
        let program_settings = ProgramSettings::default();
        let uplinks = BTreeSet::new();
        let spec =
            Spec { format: None, routes: false, node, uplinks, hook: HookChoice::Auto, program_settings };
        let datapath = Datapath::start(pins, spec, Arrival::AtOnce).unwrap();
        Self { path, datapath }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn put_peer(&mut self, subnet: Ipv4Addr, public_ip: Ipv4Addr, direct: bool) {
        let entry = PeerEntry { public_ip, vtep_mac: Mac([2, 0, 0, 0, 0, 2]), direct, format: None };
        self.datapath.tables().put_peer(subnet, entry).unwrap();
    }

    /// Counts as the programs would, on the first CPU.
    pub(super) fn count(&self, hook: Hook, reason: Reason, count: Count) {
        let mut counters: PerCpuArray<_, Count> = self.map(COUNTERS).try_into().unwrap();
        counters.set(hook.slot(reason), on_first_cpu(count), 0).unwrap();
    }

    /// Counts as the programs would, on the first CPU.
    pub(super) fn count_peer(&self, subnet: Ipv4Addr, count: PeerCount) {
        let mut counters: PerCpuHashMap<_, Ip4, PeerCount> = self.map(PEER_COUNTERS).try_into().unwrap();
        counters.insert(Ip4::from(subnet), on_first_cpu(count), 0).unwrap();
    }

    /// Sets a trace filter for some nanoseconds.
    pub(super) fn ask_for(&self, nanoseconds: u64) {
        let mut filter: Array<_, TraceFilter> = self.map(TRACE_FILTER).try_into().unwrap();
        let until = super::datapath::monotonic() + nanoseconds;
        filter.set(0, TraceFilter { until, ..TraceFilter::default() }, 0).unwrap();
    }

    fn map(&self, name: &str) -> Map {
        let data = MapData::from_pin(flannel_datapath::map_path(&self.path, name)).unwrap();
        Map::from_map_data(data).unwrap()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}

fn on_first_cpu<T: aya::Pod + Default>(value: T) -> PerCpuValues<T> {
    let mut values = vec![T::default(); aya::util::nr_cpus().unwrap()];
    values[0] = value;
    PerCpuValues::try_from(values).unwrap()
}
