//! Prometheus scrapes a running daemon.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::wait;
use rstest::rstest;
use serde_json::Value;

use crate::prometheus::{Prometheus, get, packaging, promtool};

const METRICS: &str = "127.0.0.1:9500";
/// How long a value may take from the daemon to the answer, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);

fn cluster(backend: &str) -> Cluster {
    let plan = Plan::new(backend).with_flag(&format!("--metrics-listen={METRICS}"));
    Cluster::start(&plan).unwrap()
}

fn becomes(prometheus: &Prometheus, expression: &str, expected: f64) -> Result<()> {
    wait::until(&format!("{expression} to be {expected}"), SOON, || {
        let value = prometheus.value(expression)?;
        ensure!(value == expected, "it is {value}");
        Ok(())
    })
}

#[test]
fn a_running_daemon_is_scraped() {
    let mut cluster = cluster(r#"{"Type":"vxlan"}"#);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let member = &cluster.members[0];
    let host = &member.node.host;
    let prometheus = Prometheus::start(host, METRICS).unwrap();
    for (expression, expected) in [
        ("up", 1.0),
        ("flannel_ready", 1.0),
        ("flannel_alive", 1.0),
        ("flannel_etcd_connected", 1.0),
        (r#"flannel_peers{state="programmed"}"#, 1.0),
        ("min(flannel_program_attached)", 1.0),
        ("count(flannel_file_written_timestamp_seconds)", 2.0),
        ("flannel_trace_running", 0.0),
        ("sum(flannel_scrape_errors_total)", 0.0),
    ] {
        becomes(&prometheus, expression, expected).unwrap();
    }
    assert_eq!(prometheus.query("flannel_pending").unwrap(), [0.0; 0]);
    // The same as flannelctl shows.
    let peers = member.daemon.ctl_json("peers").unwrap();
    let peer = &peers["peers"][0];
    let sent = peer["sent_packets"].as_f64().unwrap();
    assert!(sent > 0.0, "{peers}\n{}", member.daemon.ctl("counters").unwrap());
    let series = format!("flannel_peer_tx_packets_total{{peer={}}}", peer["subnet"]);
    becomes(&prometheus, &series, sent).unwrap();

    all_rules_are_evaluated(&prometheus);
    all_panels_are_answered(&prometheus);

    cluster.etcd.kill().unwrap();
    becomes(&prometheus, "flannel_etcd_connected", 0.0).unwrap();
    becomes(&prometheus, r#"ALERTS{alertname="FlannelEtcdAway",alertstate="pending"}"#, 1.0).unwrap();
    becomes(&prometheus, "flannel_ready", 1.0).unwrap();
}

fn all_rules_are_evaluated(prometheus: &Prometheus) {
    let evaluated = || {
        let answer = prometheus.ask("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        ensure!(rules.len() > 10, "{} rules", rules.len());
        let sick: Vec<&Value> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
        ensure!(sick.is_empty(), "{sick:?}");
        let alarms = rules.iter().filter(|rule| rule["state"] == "firing").collect::<Vec<_>>();
        ensure!(alarms.is_empty(), "nothing is wrong, yet {alarms:?}");
        Ok(())
    };
    wait::until("every alert to be evaluated", SOON, evaluated).unwrap();
}

fn all_panels_are_answered(prometheus: &Prometheus) {
    let text = fs::read_to_string(packaging("grafana/flannel-ebpf.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in expressions {
        let asked = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
        prometheus.query(&asked).with_context(|| expression.to_owned()).unwrap();
    }
}

#[rstest]
#[case::udp(r#"{"Type":"udp"}"#)]
#[case::vxlan(r#"{"Type":"vxlan"}"#)]
#[case::host_gw(r#"{"Type":"host-gw"}"#)]
fn promtool_finds_no_fault_with_the_metrics(#[case] backend: &str) {
    let cluster = cluster(backend);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let text = get(&cluster.members[0].node.host, METRICS, "/metrics").unwrap();
    assert!(text.contains("\nflannel_ready 1"), "{text}");
    assert_eq!(promtool(&["check", "metrics"], &text).unwrap(), "");
}
