//! Every metric is moved by a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use flannel_common::maps::{Count, PeerCount};
use flannel_common::{Hook, Reason};
use flannel_control::Metrics;
use flannel_datapath::metrics::{DatapathSource, PerPeer};
use flannel_model::backend::Kind;
use flannel_observe::{Files, Format, Limit, Liveness, Vitals};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::exposition;
use super::datapath::monotonic;
use super::metrics::MOVES;
use super::pins::Pins;

/// Metrics that a running daemon does not move, or that other tests move.
const EXCUSED: &[(&str, &str)] = &[
    ("flannel_build_info", "a daemon is of one build"),
    ("flannel_bpf_map_capacity", "maps are made with their size"),
    ("flannel_datapath_info", "read in `datapath`"),
    ("flannel_program_attached", "takes programs and interfaces: the suite `observe`"),
    ("flannel_scrape_errors_total", "moved in `datapath`"),
];

/// A daemon whose metrics can all be moved.
struct Subject {
    vitals: Vitals,
    metrics: Metrics,
    pins: Pins,
    files: TempDir,
}

impl Subject {
    fn new() -> Self {
        // A heart stops at once.
        let vitals = Vitals { liveness: Liveness::with_limit(Duration::ZERO), ..Vitals::default() };
        Self {
            vitals,
            metrics: Metrics::default(),
            pins: Pins::of(Kind::Udp),
            files: TempDir::new().unwrap(),
        }
    }

    fn read(&self) -> String {
        let source = DatapathSource { pin_dir: self.pins.path().to_owned(), per_peer: PerPeer::WhileFew };
        let path = |name| self.files.path().join(name);
        let files = Files { subnet: path("subnet.env"), state: path("state.json") };
        exposition(&self.vitals, &self.metrics, Some(&source), files).encode(Format::Prometheus).unwrap()
    }

    /// Moves one thing after the other.
    fn moves(&mut self, mut after_each: impl FnMut(&Self)) {
        for (_, move_it) in MOVES {
            move_it(&self.metrics);
            after_each(self);
        }
        self.metrics.leases.set_expires(Some(Instant::now()));
        self.metrics.leases.set_renewal(Some(Instant::now()));
        self.metrics.etcd.events_arrived();
        fs::write(self.files.path().join("state.json"), "{}").unwrap();
        let peer = Ipv4Addr::new(10, 5, 2, 0);
        self.pins.put_peer(peer, Ipv4Addr::new(192, 168, 77, 12), false);
        let count = Count { packets: 3, bytes: 300 };
        self.pins.count_peer(
            peer,
            PeerCount { sent: count, received: count, last_seen: monotonic(), last_former: 0 },
        );
        for reason in [Reason::Forwarded, Reason::NoPeer, Reason::NotTunnel] {
            self.pins.count(Hook::Decap, reason, count);
        }
        self.pins.ask_for(HOUR);
        after_each(self);
    }
}

/// In nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

/// Every metric, shown.
pub(super) fn everything() -> String {
    let mut subject = Subject::new();
    subject.moves(|_| ());
    let _lease = subject.vitals.conditions.add("subnet leased");
    subject.vitals.conditions.limit(Limit { without: "programs", reason: String::new() });
    subject.read()
}

/// The lines of each metric.
fn families(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::<String, BTreeSet<String>>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, _)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            name.clone_into(&mut current);
        } else if !line.starts_with('#') {
            families.entry(current.clone()).or_default().insert(line.to_owned());
        }
    }
    families
}

#[test]
fn every_metric_is_moved() {
    let mut subject = Subject::new();
    let lease = subject.vitals.conditions.add("subnet leased");
    let heart = subject.vitals.liveness.heart("event loop");
    let mut before = families(&subject.read());
    drop(heart);
    lease.meet();
    subject.vitals.conditions.limit(Limit { without: "programs", reason: String::new() });
    let mut moved = BTreeSet::new();
    subject.moves(|subject| {
        let after = families(&subject.read());
        moved.extend(
            after.keys().chain(before.keys()).filter(|name| before.get(*name) != after.get(*name)).cloned(),
        );
        before = after;
    });
    let names = families(&everything()).into_keys().filter(|name| name.starts_with("flannel_"));
    for name in names {
        let is_excused = EXCUSED.iter().any(|(excused, _)| *excused == name);
        assert!(
            moved.contains(&name) != is_excused,
            "{name} is moved by no test, or excused without need: see MOVES"
        );
    }
}

/// A metric without series is not shown, so it is found in the source.
#[test]
fn every_metric_of_the_source_is_among_them() {
    let shown: BTreeSet<String> = families(&everything()).into_keys().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = BTreeSet::new();
    for source in sources(&root) {
        for name in names(&source) {
            named.insert(name.to_owned());
            let forms = ["", "_total", "_info"]
                .iter()
                .flat_map(|suffix| ["flannel", "process"].map(|prefix| format!("{prefix}_{name}{suffix}")));
            assert!(
                forms.into_iter().any(|form| shown.contains(&form)),
                "no test moves {name}: add it to MOVES"
            );
        }
    }
    assert_eq!(named.len(), shown.len(), "each metric is named in the source");
}

/// The texts of the files that make metrics, without tests.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| path.file_name().is_some_and(|name| name != "tests"));
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![fs::read_to_string(path).unwrap()] })
        .filter(|text| text.contains("use prometheus_client"))
        .collect()
}

/// The first texts after calls that make metrics.
fn names(source: &str) -> Vec<&str> {
    let calls =
        ["registry.register(", ".register(\n", "writer.counters(", ".gauges(", "writer.info(", "put("];
    let mut names = Vec::new();
    for call in calls {
        for (at, _) in source.match_indices(call) {
            let rest = source[at + call.len()..].trim_start();
            if let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                names.push((at + call.len() + source[at + call.len()..].find('"').unwrap_or(0), name));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|(_, name)| name).collect()
}
