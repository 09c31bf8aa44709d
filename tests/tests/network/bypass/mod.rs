//! Packets of pods that skip bridge, routing and netfilter; and all that must be as if they did not.

mod change;
mod contest;
mod flow;
mod idle;
mod netfilter;
mod others;

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::network::{HostOptions, Offloads, Place};
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::{Ping, Stream, transfer};
use flannel_tests::wait;
use rstest::rstest;

use crate::{DIRECT, HOST_GW, STRICT, UDP, UDP_DIRECT, VXLAN, plan};
use flow::{Datagrams, Flow as _};

/// Bytes of a file.
const FILE: u64 = 100_000_000;

/// Two hosts with a pod each, whose ports are served.
fn start(backend: &str, flags: &[&str]) -> Cluster {
    let plan = flags.iter().fold(plan(backend), |plan, flag| plan.with_flag(flag));
    start_plan(&plan)
}

pub fn start_plan(plan: &Plan) -> Cluster {
    let cluster = Cluster::start(plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster
}

/// The mode for tests of the bypass: given explicitly, it stays in a run without the bypass.
pub fn told(bypass: &str) -> &str {
    if bypass == "auto" { "flow" } else { bypass }
}

/// Two hosts with a pod each, whose ports and bridges are served as far as they will be.
pub fn start_served(backend: &str, hook: &str, bypass: &str, offloads: Offloads) -> Cluster {
    let host = HostOptions { offloads, ..HostOptions::default() };
    let bypass = told(bypass);
    let plan = Plan { host, ..plan(backend) }
        .with_flag(&format!("--datapath-hook={hook}"))
        .with_flag(&format!("--pod-bypass={bypass}"));
    let cluster = start_plan(&plan);
    if backend != HOST_GW {
        cluster.members.iter().for_each(wait_for_port);
    }
    cluster
}

/// Waits until the program at the bridge knows where the pod is.
fn wait_for_port(member: &Member) {
    let is_known = || member.daemon.ctl("maps dump PORTS").is_ok_and(|dump| dump.contains("cni0"));
    wait::until_true("the pod's port to be known", Duration::from_secs(5), is_known).unwrap();
}

/// Packets a host's pods have sent by the bypass, and packets they got by it.
pub fn bypassed(daemon: &Daemon) -> (u64, u64) {
    let count = |hook| daemon.count(hook, "bypassed").unwrap();
    (count("pod_out"), count("decap") + count("direct_in"))
}

#[rstest]
#[case::vxlan(VXLAN, "auto", Place::Far)]
#[case::vxlan_clsact(VXLAN, "clsact", Place::Near)]
#[case::vxlan_xdp(VXLAN, "xdp", Place::Near)]
#[case::udp(UDP, "auto", Place::Far)]
#[case::udp_clsact(UDP, "clsact", Place::Near)]
#[case::udp_xdp(UDP, "xdp", Place::Near)]
#[case::host_gw(HOST_GW, "auto", Place::Near)]
#[case::host_gw_clsact(HOST_GW, "clsact", Place::Near)]
#[case::direct_routing(DIRECT, "auto", Place::Near)]
#[case::udp_direct_routing(UDP_DIRECT, "auto", Place::Near)]
#[case::direct_routing_xdp_by_a_router(DIRECT, "xdp", Place::Far)]
#[case::udp_direct_routing_xdp_by_a_router(UDP_DIRECT, "xdp", Place::Far)]
fn flows_bypass_the_stack_without_loss_or_overtaking(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] place: Place,
) {
    let plan = Plan { places: vec![Place::Near, place], host: STRICT, ..plan(backend) };
    let cluster = start_plan(&plan.with_flag(&format!("--datapath-hook={hook}")));
    let [first, second] = [0, 1].map(|member| &cluster.members[member].daemon);
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), 5000).unwrap();
    sleep(Duration::from_secs(1));
    let losses = stream.stop().unwrap();
    assert_eq!((losses.unexcused(), losses.duplicates, losses.overtaken), (0, 0, 0), "{losses:?}");
    let (sent, _) = bypassed(first);
    let (_, received) = bypassed(second);
    // One in 40 ms goes through the stack, and a few after it.
    assert!(sent > losses.sent * 8 / 10, "{sent} of {losses:?}");
    assert!(received > losses.sent * 8 / 10, "{received} of {losses:?}");

    transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
    let answers = bypassed(second).0;
    assert!(answers > 100, "only {answers} answers of the file's receiver bypassed the stack");
    assert!(bypassed(first).0 > sent + 500, "the file itself was not");
    if matches!(place, Place::Far) {
        assert_eq!(second.count("direct_in", "bypassed").unwrap(), 0, "nothing comes plain by a router");
    }
}

#[test]
fn nothing_bypasses_where_that_is_off() {
    let cluster = Cluster::start(&plan(VXLAN).with_flag("--pod-bypass=off")).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
    for member in &cluster.members {
        assert_eq!(bypassed(&member.daemon), (0, 0));
        let log = std::fs::read_to_string(member.daemon.log()).unwrap();
        assert!(!log.contains("pod_out"), "{log}");
    }
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn hops_are_counted_on_the_bypass(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let capture = Capture::start(&to.namespace, "eth0").unwrap();
    let stream = Stream::start(from, to, 1000).unwrap();
    let (mut ttls, mut count) = (BTreeSet::new(), 0);
    let seen = capture.find("five hundred datagrams", Duration::from_secs(5), |frame| {
        let is_datagram = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
        if is_datagram && frame.get(26..30) == Some(&from.address.octets()) {
            ttls.extend(frame.get(22));
            count += 1;
        }
        (count == 500).then_some(())
    });
    stream.stop().unwrap();
    seen.unwrap();
    assert_eq!(ttls, [62].into());
    assert!(bypassed(&cluster.members[1].daemon).1 > 300);
}

/// A pod whose interface takes more than the tunnel does sends short packets of a flow, then one too long.
#[rstest]
#[case::vxlan(VXLAN, 1450)]
#[case::udp(UDP, 1472)]
#[case::host_gw(HOST_GW, 1500)]
fn a_packet_too_long_for_the_tunnel_is_answered(#[case] backend: &str, #[case] mtu: u32) {
    let mut plan = plan(backend);
    plan.host.offloads = Offloads::None;
    let cluster = start_plan(&plan);
    let node = &cluster.members[0].node;
    let pod = &node.pods[0];
    node.host.namespace.ip(&format!("link set {} mtu {}", pod.port, mtu + 100)).unwrap();
    node.host.namespace.ip(&format!("link set cni0 mtu {}", mtu + 100)).unwrap();
    pod.endpoint.namespace.ip(&format!("link set eth0 mtu {}", mtu + 100)).unwrap();
    let ping = |size, count| Ping {
        count,
        size,
        dont_fragment: true,
        interval: Duration::from_millis(2),
        ..Ping::default()
    };
    let target = cluster.pod(1).unwrap();
    ping(mtu, 100).send(&pod.endpoint, target).unwrap().check().unwrap();
    assert!(bypassed(&cluster.members[0].daemon).0 > 50);
    let pong = ping(mtu + 1, 3).send(&pod.endpoint, target).unwrap();
    assert_eq!((pong.received, pong.mtu), (0, Some(mtu)), "{pong:?}");

    let flow = Datagrams::start(&pod.endpoint, target).unwrap();
    flow.wait_for(200).unwrap();
    wait::until("a packet of a bypassing flow to be found too long", Duration::from_secs(5), || {
        pod.endpoint.namespace.ip("route flush cache")?;
        let error = flow.send_unfragmented(mtu as usize + 1 - 28, Duration::from_secs(2))?;
        assert_eq!(error, Some(mtu), "the sender learns the size that may be");
        // One that comes just when its flow is to be confirmed again is answered by the stack.
        ensure!(cluster.members[0].daemon.count("pod_out", "too_long")? > 0, "none was");
        Ok(())
    })
    .unwrap();
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn fragments_pass(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    let ping = Ping { count: 50, size: 4000, interval: Duration::from_millis(5), ..Ping::default() };
    ping.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap().check().unwrap();
}
