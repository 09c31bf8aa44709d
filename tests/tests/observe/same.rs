//! Every number that `flannelctl` shows of a running daemon's datapath is a metric with that value, and every metric of
//! the datapath is shown by `flannelctl`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::wait;
use rstest::rstest;
use serde_json::Value;

use crate::prometheus::get;

const METRICS: &str = "127.0.0.1:9500";
/// How long traffic may take to rest, so that two looks see the same.
const SOON: Duration = Duration::from_secs(20);

/// Numbers that are no figures.
const NO_FIGURES: &[(&str, &str)] = &[
    ("status device.index", "a name the kernel gives"),
    ("status public_interface.index", "a name the kernel gives"),
    ("status programs[].interface.index", "a name the kernel gives"),
    ("status daemon.pid", "a name the kernel gives"),
    ("status vni", "a label of flannel_datapath_info"),
    ("status port", "a label of flannel_datapath_info"),
    ("status daemon.started", "process_start_time_seconds is the kernel's, in hundredths of a second"),
    (
        "status daemon.lease.expires_seconds",
        "flannel_lease_expires_timestamp_seconds tells when, not in how long",
    ),
    ("leases age_seconds", "flannel_file_written_timestamp_seconds tells when, not how long ago"),
];

/// Metrics of the daemon and its files, which `flannelctl` sees from outside; and the capacities of maps.
const OF_THE_DAEMON: &[&str] = &[
    "flannel_bpf_map_capacity",
    "flannel_bpf_map_pressure_ratio",
    "flannel_build_info",
    "flannel_config_",
    "flannel_etcd_",
    "flannel_file_written_",
    "flannel_kubernetes_",
    "flannel_lease_",
    "flannel_mass_delete_holds_total",
    "flannel_propagation_seconds",
    "flannel_reconcile_",
    "flannel_resync_total",
    "flannel_scrape_errors_total",
    "flannel_trace_running",
    "process_",
];

/// Values by their series: the name, and the labels in order.
type Figures = BTreeMap<String, f64>;

#[rstest]
#[case::vxlan(r#"{"Type":"vxlan"}"#)]
#[case::udp(r#"{"Type":"udp"}"#)]
#[case::host_gw(r#"{"Type":"host-gw"}"#)]
fn flannelctl_and_metrics_tell_the_same(#[case] backend: &str) {
    let plan = Plan::new(backend).with_flag(&format!("--metrics-listen={METRICS}"));
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let member = &cluster.members[0];
    wait::until("the two to tell the same", SOON, || compare(member)).unwrap();
}

fn compare(member: &Member) -> Result<()> {
    let before = scrape(member)?;
    let shown = shown(member)?;
    let after = scrape(member)?;
    ensure!(figures(&before) == figures(&after), "traffic does not rest");
    let told = figures(&after);
    for (series, value) in &shown {
        // What never was has no series.
        let metric = told.get(series).copied().unwrap_or(0.0);
        ensure!(metric == *value, "{series} is {value}, the metric {metric}");
    }
    let families: BTreeSet<&str> = shown.keys().map(|series| family(series)).collect();
    for (series, value) in told {
        let is_excused = OF_THE_DAEMON.iter().any(|prefix| series.starts_with(prefix));
        ensure!(is_excused != families.contains(family(&series)), "{series} is shown by nothing, or excused");
        ensure!(is_excused || value == 0.0 || shown.contains_key(&series), "{series} {value} is not shown");
    }
    Ok(())
}

fn family(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

fn scrape(member: &Member) -> Result<String> {
    get(&member.node.host, METRICS, "/metrics")
}

/// Without the labels that only say where a hook is, and without what passes with time.
fn figures(text: &str) -> Figures {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let figures = lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !["", "direction", "mode"].contains(&label.split('=').next().unwrap_or_default()))
            .collect();
        labels.sort_unstable();
        let moves =
            ["flannel_peer_last_seen_seconds", "process_"].iter().any(|prefix| name.starts_with(prefix));
        let value = if moves { 1.0 } else { value.parse().ok()? };
        Some((format!("{name}{{{}}}", labels.join(",")), value))
    });
    figures.collect()
}

/// What `flannelctl` shows, by the names of metrics.
fn shown(member: &Member) -> Result<Figures> {
    let mut figures = Figures::new();
    let mut put = |name: &str, labels: &[(&str, &Value)], value: f64| {
        let mut labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort_unstable();
        figures.insert(format!("{name}{{{}}}", labels.join(",")), value);
    };
    let mut numbers = BTreeSet::new();
    let mut ask = |verb: &str| {
        let mut answer = member.daemon.ctl_json(verb)?;
        // It is of the document, not of the host.
        answer.as_object_mut().and_then(|members| members.remove("schema_version"));
        let word = verb.split(' ').next().unwrap_or_default();
        leaves(&answer, word, &mut numbers);
        Ok::<_, anyhow::Error>(answer)
    };
    let status = ask("status")?;
    let no_text = Value::from("");
    let text = |value: &Value| Value::from(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    put("flannel_peers", &[("state", &"programmed".into())], number(&status["peers"])?);
    let is = |value: &Value| f64::from(u8::from(value == true));
    put("flannel_ready", &[], is(&status["daemon"]["ready"]));
    put("flannel_alive", &[], 1.0);
    let device = status["device"].get("name").unwrap_or(&no_text);
    let [vni, port] =
        ["vni", "port"].map(|key| if status[key].is_null() { "0".into() } else { text(&status[key]) });
    let info = [
        ("backend", &status["backend"]),
        ("device", device),
        ("guard", &status["guard"]),
        ("local_ip", &status["address"]),
        ("port", &port),
        ("subnet", &status["subnet"]),
        ("underlay", &status["public_interface"]["name"]),
        ("vni", &vni),
    ];
    put("flannel_datapath_info", &info, 1.0);
    for program in list(&status["programs"])? {
        let required = text(&program["required"]);
        let labels = [
            ("program", &program["program"]),
            ("interface", &program["interface"]["name"]),
            ("mechanism", &program["mechanism"]),
            ("required", &required),
        ];
        put("flannel_program_attached", &labels, is(&program["attached"]));
    }
    for peer in list(&ask("peers")?["peers"])? {
        let of = [("peer", &peer["subnet"])];
        for (metric, key) in [
            ("tx_packets_total", "sent_packets"),
            ("tx_bytes_total", "sent_bytes"),
            ("rx_packets_total", "received_packets"),
            ("rx_bytes_total", "received_bytes"),
        ] {
            put(&format!("flannel_peer_{metric}"), &of, number(&peer[key])?);
        }
        if !peer["last_seen_seconds"].is_null() {
            put("flannel_peer_last_seen_seconds", &of, 1.0);
        }
        if let Some(whole) = peer["whole"].as_bool() {
            put("flannel_peer_whole", &of, f64::from(u8::from(whole)));
        }
        let mac = if peer["vtep_mac"].is_null() { &no_text } else { &peer["vtep_mac"] };
        let info = [
            ("peer", &peer["subnet"]),
            ("path", &peer["path"]),
            ("public_ip", &peer["public_ip"]),
            ("vtep_mac", mac),
        ];
        put("flannel_peer_info", &info, 1.0);
    }
    for counter in list(&ask("counters --all")?["counters"])? {
        let verdict = counter["verdict"].as_str().context("no verdict")?;
        for unit in ["packets", "bytes"] {
            let labels = [("hook", &counter["hook"]), ("reason", &counter["reason"])];
            put(&format!("flannel_{verdict}_{unit}_total"), &labels, number(&counter[unit])?);
        }
    }
    for dropped in list(&ask("drops")?["drops"])? {
        let labels = [("hook", &dropped["hook"]), ("reason", &dropped["reason"])];
        put("flannel_drop_packets_total", &labels, number(&dropped["packets"])?);
    }
    // Entry by entry a map is no figure, their number is.
    let maps = member.daemon.ctl_json("maps dump")?;
    for map in ["PEERS", "SOURCES", "PEER_COUNTERS", "PORTS"] {
        put("flannel_bpf_map_entries", &[("map", &map.into())], list(&maps[map])?.len() as f64);
    }
    ask(&format!("leases --state-file={}", member.daemon.state_file().display()))?;
    all_are_known(&numbers)?;
    Ok(figures)
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

fn list(value: &Value) -> Result<Vec<Value>> {
    value.as_array().cloned().with_context(|| format!("{value} is no list"))
}

/// Where numbers stand in an answer.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Number(_) => drop(found.insert(path.to_owned())),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, &format!("{path}[]"), found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            let dot = if path.contains(' ') { "." } else { " " };
            leaves(value, &format!("{path}{dot}{name}"), found);
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Fails if `flannelctl` shows a number that is not compared with a metric.
fn all_are_known(numbers: &BTreeSet<String>) -> Result<()> {
    let compared = [
        "status peers",
        "peers peers[].sent_packets",
        "peers peers[].sent_bytes",
        "peers peers[].received_packets",
        "peers peers[].received_bytes",
        "peers peers[].last_seen_seconds",
        "counters counters[].packets",
        "counters counters[].bytes",
        "drops drops[].packets",
        "drops drops[].bytes",
    ];
    let is_known = |path: &&String| {
        compared.contains(&path.as_str()) || NO_FIGURES.iter().any(|(known, _)| *known == path.as_str())
    };
    let unknown: Vec<&String> = numbers.iter().filter(|path| !is_known(path)).collect();
    ensure!(unknown.is_empty(), "{unknown:?}: no metric is held against them");
    Ok(())
}
