//! What others do to a pod's packets at its port must not be skipped.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::traffic::{Ping, Stream, transfer};
use flannel_tests::wait;
use rstest::rstest;

use super::flow::{Datagrams, Flow};
use super::{FILE, bypassed, start};
use crate::{HOST_GW, UDP, VXLAN};

/// Interfaces that come have every program put in its place again.
#[rstest]
#[case::clsact("clsact")]
#[case::tcx("auto")]
fn nothing_is_lost_while_programs_are_held_in_their_places(#[case] hook: &str) {
    let cluster = start(VXLAN, &[&format!("--datapath-hook={hook}")]);
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), 5000).unwrap();
    for number in 0..10 {
        for member in &cluster.members {
            member.node.host.namespace.ip(&format!("link add new{number} type bridge")).unwrap();
        }
        sleep(Duration::from_millis(200));
    }
    let losses = stream.stop().unwrap();
    assert_eq!(losses.unexcused(), 0, "{losses:?}");
}

/// Somebody shapes or filters what a pod sends or gets.
#[rstest]
#[case::queue("qdisc add dev pod1 root tbf rate 1gbit burst 100kb latency 100ms")]
#[case::ingress("qdisc add dev pod1 ingress")]
#[case::filter("filter add dev pod1 egress pref 9 protocol ip u32 match u32 0 0 flowid 1:1")]
fn a_pod_somebody_else_looks_after_is_left_alone(#[case] command: &str) {
    let cluster = start(VXLAN, &[]);
    let member = &cluster.members[1];
    let host = &member.node.host.namespace;
    let flow = Datagrams::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap();
    flow.wait_for(200).unwrap();
    if command.starts_with("filter") {
        host.run("tc", "qdisc add dev pod1 clsact").unwrap();
    }
    host.run("tc", command).unwrap();
    let is_left_alone = || {
        let before = bypassed(&member.daemon).1;
        flow.wait_for(100).unwrap();
        bypassed(&member.daemon).1 == before
    };
    wait::until_true("the pod to be left alone", Duration::from_secs(15), is_left_alone).unwrap();
    transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
    Ping::default().send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap().check().unwrap();

    host.run(
        "tc",
        &format!("qdisc del dev pod1 {}", if command.contains("root") { "root" } else { "ingress" }),
    )
    .or_else(|_| host.run("tc", "qdisc del dev pod1 clsact"))
    .unwrap();
    let is_served = || {
        let before = bypassed(&member.daemon).1;
        flow.wait_for(100).unwrap();
        bypassed(&member.daemon).1 > before
    };
    wait::until_true("the pod to be served again", Duration::from_secs(15), is_served).unwrap();
}

/// Whether flows to a member are left alone.
fn is_left_alone(flow: &Datagrams, member: &flannel_tests::cluster::Member) -> bool {
    let before = bypassed(&member.daemon).1;
    flow.wait_for(100).unwrap();
    bypassed(&member.daemon).1 == before
}

/// Somebody shapes or filters what passes the bridge, the flannel device, or what arrives by routes.
#[rstest]
#[case::queue_of_the_bridge(
    VXLAN,
    "qdisc add dev cni0 root tbf rate 1gbit burst 100kb latency 100ms",
    "root"
)]
#[case::filter_of_the_bridge(UDP, "qdisc add dev cni0 clsact", "clsact")]
#[case::queue_of_the_device(
    VXLAN,
    "qdisc add dev flannel.1 root tbf rate 1gbit burst 100kb latency 100ms",
    "root"
)]
#[case::arrivals(HOST_GW, "qdisc add dev eth0 ingress", "ingress")]
fn what_others_see_on_the_way_they_go_on_seeing(
    #[case] backend: &str,
    #[case] command: &str,
    #[case] parent: &str,
) {
    // An ingress qdisc and ours under clsact exclude each other.
    let cluster = start(backend, &[]);
    let member = &cluster.members[1];
    let host = &member.node.host.namespace;
    let flow = Datagrams::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap();
    flow.wait_for(200).unwrap();
    wait::until_true("the flow to be short", Duration::from_secs(5), || !is_left_alone(&flow, member))
        .unwrap();
    host.run("tc", command).unwrap();
    let device = command.split_whitespace().nth(3).unwrap();
    if parent == "clsact" {
        let filter =
            format!("filter add dev {device} egress pref 9 protocol ip u32 match u32 0 0 flowid 1:1");
        host.run("tc", &filter).unwrap();
    }
    wait::until_true("the flow to be left alone", Duration::from_secs(15), || is_left_alone(&flow, member))
        .unwrap();
    transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
    if device == "cni0" {
        let log = std::fs::read_to_string(member.daemon.log()).unwrap();
        assert!(log.contains("bridge-"), "super-packets still pass the bridge's queue by: {log}");
    }
    host.run("tc", &format!("qdisc del dev {device} {parent}")).unwrap();
    wait::until_true("the flow to be short again", Duration::from_secs(15), || !is_left_alone(&flow, member))
        .unwrap();
}
