//! The log of a running daemon, and how loud it is.

use std::fs;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::Daemon;
use flannel_tests::wait::until_true;
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

fn cluster(flags: &[&str]) -> Cluster {
    let mut plan = Plan::new(r#"{"Type":"host-gw"}"#);
    plan.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    plan.places.truncate(1);
    Cluster::start(&plan).unwrap()
}

fn log(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.log()).unwrap()
}

fn logs_from(daemon: &Daemon, level: &str, times: usize) {
    let told = format!("level={level}");
    let is_told = || log(daemon).matches(&told).count() == times;
    until_true(&format!("the log to say {told} {times} times"), SOON, is_told).unwrap();
}

#[test]
fn signals_make_it_louder_and_as_it_was_told() {
    let cluster = cluster(&["--iptables-resync=1"]);
    let daemon = &cluster.members[0].daemon;
    assert!(!log(daemon).contains("DEBUG"), "{}", log(daemon));
    daemon.signal(Signal::SIGUSR1).unwrap();
    logs_from(daemon, "DEBUG", 1);
    // Something to log.
    cluster
        .etcd
        .put(
            "/coreos.com/network/subnets/10.5.77.0-24",
            r#"{"PublicIP":"192.168.77.77","BackendType":"host-gw"}"#,
        )
        .unwrap();
    until_true("a line for those who look for faults", SOON, || log(daemon).contains("DEBUG")).unwrap();
    let namespace = &cluster.members[0].node.host.namespace;
    let is_there = || namespace.ip("route").is_ok_and(|routes| routes.contains("10.5.77.0"));
    until_true("the peer to be there", SOON, is_there).unwrap();
    daemon.signal(Signal::SIGUSR1).unwrap();
    logs_from(daemon, "TRACE", 1);
    daemon.signal(Signal::SIGUSR2).unwrap();
    logs_from(daemon, "INFO", 1);
    let before = log(daemon).matches("DEBUG").count();
    cluster.etcd.delete("/coreos.com/network/subnets/10.5.77.0-24").unwrap();
    let is_gone = || namespace.ip("route").is_ok_and(|routes| !routes.contains("10.5.77.0"));
    until_true("the peer to be gone", SOON, is_gone).unwrap();
    assert_eq!(log(daemon).matches("DEBUG").count(), before);
}

#[test]
fn each_line_is_an_object_where_programs_read_it() {
    let cluster = cluster(&["--log-format=json"]);
    let text = log(&cluster.members[0].daemon);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3, "{text}");
    for line in &lines {
        for field in ["timestamp", "level", "message"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
    let network = lines.iter().find(|line| line["message"] == "network configuration").unwrap();
    assert_eq!(network["network"], "10.5.0.0/16");
}
