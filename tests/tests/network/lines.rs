//! Lines about packets that the programs drop, in the daemon's log.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::traffic::Endpoint;
use flannel_tests::wait::until;
use rstest::rstest;
use serde_json::Value;

use crate::guard::{COUNT, Forgery, stranger};
use crate::{UDP, VXLAN, plan};

const SOON: Duration = Duration::from_secs(10);

/// A network whose second host drops what `stranger` forges, and that host's log in JSON.
fn cluster(backend: &str, flags: &[&str]) -> (Cluster, Endpoint) {
    let mut plan = plan(backend).with_flag("--log-format=json");
    plan.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let cluster = Cluster::start(&plan).unwrap();
    let stranger = stranger(&cluster);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    (cluster, stranger)
}

fn lines(daemon: &Daemon, message: &str) -> Vec<Value> {
    let log = fs::read_to_string(daemon.log()).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message))).collect()
}

/// The lines about packets that are forged now, as soon as each is logged, or counted as left out.
fn told(cluster: &Cluster, stranger: &Endpoint) -> Vec<Value> {
    let daemon = &cluster.members[1].daemon;
    let read = || {
        let left_out = lines(daemon, "left out lines").iter().filter_map(|line| line["lines"].as_u64()).sum();
        (lines(daemon, "dropped a packet"), left_out)
    };
    let (before, left_out_before): (_, u64) = read();
    Forgery::NoLease.send(cluster, stranger);
    until("a line, or one left out, for each packet", SOON, || {
        let (now, left_out): (_, u64) = read();
        let all = now.len() - before.len() + usize::try_from(left_out - left_out_before)?;
        ensure!(all == COUNT, "{all} of {COUNT}");
        Ok(now[before.len()..].to_vec())
    })
    .unwrap()
}

#[rstest]
#[case::udp(UDP, "auto", "decap")]
#[case::udp_xdp(UDP, "xdp", "xdp")]
#[case::vxlan(VXLAN, "auto", "decap")]
#[case::vxlan_clsact(VXLAN, "clsact", "decap")]
#[case::vxlan_xdp(VXLAN, "xdp", "xdp")]
fn dropped_packets_are_told_with_who_and_why(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] told_at: &str,
) {
    let (cluster, stranger) = cluster(backend, &[&format!("--datapath-hook={hook}"), "--datapath-log=warn"]);
    let lines = told(&cluster, &stranger);
    // Half of them may fall into another second.
    assert!((1..=40).contains(&lines.len()), "{} lines", lines.len());
    let (pod, target) = (cluster.pod(0).unwrap().address, cluster.pod(1).unwrap().address);
    for line in &lines {
        for (field, expected) in [
            ("level", "WARN"),
            ("hook", told_at),
            ("reason", "unknown_outer_source"),
            ("interface", "eth0"),
            ("outer_source", &stranger.address.to_string()),
            ("outer_destination", &cluster.members[1].node.host.address.to_string()),
            ("source", &pod.to_string()),
            ("destination", &target.to_string()),
        ] {
            assert_eq!(line[field], expected, "{field} in {line}");
        }
    }
}

#[test]
fn nothing_is_told_unless_it_is_asked_for() {
    let (cluster, stranger) = cluster(VXLAN, &[]);
    let daemon = &cluster.members[1].daemon;
    Forgery::NoLease.send(&cluster, &stranger);
    until("the packets to be counted", SOON, || {
        ensure!(daemon.count("decap", "unknown_outer_source")? == COUNT as u64);
        Ok(())
    })
    .unwrap();
    assert_eq!(lines(daemon, "dropped a packet"), [Value::Null; 0]);
}

/// Nobody reads what the programs of a daemon that is gone write: more of it than there is room for is lost, and no
/// packet with it.
#[test]
fn programs_go_on_without_a_reader_and_the_next_daemon_reads() {
    let (mut cluster, stranger) = cluster(VXLAN, &["--datapath-log=info"]);
    cluster.members[1].daemon.kill().unwrap();
    for _ in 0..20 {
        Forgery::NoLease.send(&cluster, &stranger);
    }
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let dropped = cluster.members[1].daemon.count("decap", "unknown_outer_source").unwrap();
    assert_eq!(dropped, 20 * COUNT as u64);
    cluster.members[1].daemon.restart().unwrap();
    cluster.members[1].daemon.wait_ready().unwrap();
    assert!(!told(&cluster, &stranger).is_empty());
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}
