//! Policies of IPsec that concern the tunnel: none of its packets passes by one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use flannel_tests::cluster::{Cluster, Member, check_reached, pod_pairs};
use flannel_tests::leases::Lease;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::{Ping, Stream};
use flannel_tests::wait;
use rstest::rstest;

use crate::sight::{HEALTH, HEALTH_FLAG, UDP, VXLAN, learn, paper_lease, plan, readiness};

/// Until a policy is obeyed, and until it is forgotten.
const NOTICE: Duration = Duration::from_secs(2);
/// For so long nothing must pass.
const QUIET: Duration = Duration::from_millis(500);
const RATE: u32 = 1000;
/// How long frames are looked at while they keep coming.
const LOOK: Duration = Duration::from_secs(1);

struct Policy<'a> {
    host: &'a Member,
    selector: String,
}

impl<'a> Policy<'a> {
    /// About the tunnel packets to or from `peer`.
    fn new(host: &'a Member, peer: &Member, direction: &str) -> Self {
        let (own, other) = (host.node.host.address, peer.node.host.address);
        let (source, destination) = if direction == "out" { (own, other) } else { (other, own) };
        Self { host, selector: format!("src {source} dst {destination} proto udp dir {direction}") }
    }

    fn marked(self) -> Self {
        Self { selector: format!("{} mark 0x77 mask 0xff", self.selector), ..self }
    }

    fn add(&self) {
        let command = format!("xfrm policy add {} action block", self.selector);
        self.host.node.host.namespace.ip(&command).unwrap();
    }

    fn delete(&self) {
        self.host.node.host.namespace.ip(&format!("xfrm policy delete {}", self.selector)).unwrap();
    }
}

fn port_of(backend: &str) -> u16 {
    if backend == UDP { 8285 } else { 8472 }
}

/// How many packets for that UDP port have left a host since `capture` was looked at last.
fn sent(capture: &Capture, host: &Member, port: u16) -> usize {
    let mut packets = 0;
    let source = host.node.host.address.octets();
    capture
        .each_within(LOOK, |frame| {
            let is_tunnel = frame.get(23) == Some(&17) && frame.get(36..38) == Some(&port.to_be_bytes()[..]);
            packets += usize::from(is_tunnel && frame.get(26..30) == Some(&source[..]));
        })
        .unwrap();
    packets
}

/// Waits until `/readyz` of a member says so.
fn wait_told(member: &Member, is_so: impl Fn(&serde_json::Value) -> bool) {
    wait::until("the daemon to tell of the policy", NOTICE, || {
        let answer = readiness(&member.node.host, HEALTH);
        if is_so(&answer) { Ok(()) } else { bail!("{answer}") }
    })
    .unwrap();
}

fn is_obeyed(answer: &serde_json::Value, backend: &str) -> bool {
    let (place, is_ready) = if backend == UDP { ("failing", false) } else { ("limits", true) };
    answer["ready"] == is_ready && answer[place].to_string().contains("ip xfrm policy delete")
}

fn is_clear(answer: &serde_json::Value) -> bool {
    answer["ready"] == true && answer["limits"] == serde_json::json!([])
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
fn no_tunnel_packet_leaves_against_a_policy(#[case] backend: &str) {
    let mut cluster = Cluster::start(&plan(backend).with_flag(HEALTH_FLAG)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let port = port_of(backend);
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), RATE).unwrap();
    let (host, peer) = (&cluster.members[0], &cluster.members[1]);
    let capture = Capture::start(&host.node.host.namespace, "eth0").unwrap();
    sleep(QUIET);
    assert!(sent(&capture, host, port) > 0, "nothing is sent at all");

    let policy = Policy::new(host, peer, "out");
    policy.add();
    let since = Instant::now();
    wait_told(host, |answer| is_obeyed(answer, backend));
    println!("obeyed after {} ms", since.elapsed().as_millis());
    sent(&capture, host, port);
    sleep(QUIET);
    assert_eq!(sent(&capture, host, port), 0, "packets leave against the policy");

    // Not while the daemon is away, nor when it comes again, either.
    let daemon = &mut cluster.members[0].daemon;
    daemon.kill().unwrap();
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    let (host, peer) = (&cluster.members[0], &cluster.members[1]);
    wait_told(host, |answer| is_obeyed(answer, backend));
    assert_eq!(sent(&capture, host, port), 0, "packets leave against the policy");

    Policy::new(host, peer, "out").delete();
    wait_told(host, is_clear);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    stream.stop().unwrap();
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
fn no_tunnel_packet_is_taken_against_a_policy(#[case] backend: &str) {
    let cluster = Cluster::start(&plan(backend).with_flag(HEALTH_FLAG)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (host, peer) = (&cluster.members[1], &cluster.members[0]);
    let policy = Policy::new(host, peer, "in");
    policy.add();
    wait_told(host, |answer| is_obeyed(answer, backend));
    let pong = Ping { count: 10, ..Ping::default() }.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let pong = pong.unwrap();
    assert_eq!((pong.sent, pong.received), (10, 0), "packets are taken against the policy");
    policy.delete();
    wait_told(host, is_clear);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

/// The stack knows that the policy is not about these packets, and the guard stays on.
#[test]
fn what_a_policy_lets_pass_is_carried_by_the_stack() {
    let cluster = Cluster::start(&plan(VXLAN).with_flag(HEALTH_FLAG)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (host, peer) = (&cluster.members[0], &cluster.members[1]);
    for direction in ["out", "in"] {
        Policy::new(host, peer, direction).marked().add();
    }
    wait_told(host, |answer| is_obeyed(answer, VXLAN));
    let counts = || ["encap", "decap"].map(|hook| host.daemon.count(hook, "left_to_policy").unwrap());
    let before = counts();
    let [there, back] = [(0, 1), (1, 0)]
        .map(|(from, to)| Stream::start(cluster.pod(from).unwrap(), cluster.pod(to).unwrap(), RATE).unwrap());
    sleep(QUIET);
    for stream in [there, back] {
        let losses = stream.stop().unwrap();
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
    let after = counts();
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    assert_eq!(host.daemon.count("device", "not_guarded").unwrap(), 0);
}

#[test]
fn a_policy_about_others_changes_nothing() {
    let cluster = Cluster::start(&plan(VXLAN).with_flag(HEALTH_FLAG)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let host = &cluster.members[0];
    let others = "src 192.168.77.11 dst 192.168.77.99 dir out action block";
    host.node.host.namespace.ip(&format!("xfrm policy add {others}")).unwrap();
    sleep(NOTICE);
    wait_told(host, is_clear);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    assert_eq!(host.daemon.count("encap", "left_to_policy").unwrap(), 0);
}

/// Whoever it is about may come later.
#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
fn a_peer_that_comes_later_is_looked_at_first(#[case] backend: &str) {
    let mut plan = plan(backend).with_flag(HEALTH_FLAG);
    plan.places.truncate(1);
    let mut cluster = Cluster::start(&plan).unwrap();
    let host = &cluster.members[0];
    let command = "xfrm policy add src 192.168.77.11 dst 192.168.77.12 proto udp dir out action block";
    host.node.host.namespace.ip(command).unwrap();
    let capture = Capture::start(&host.node.host.namespace, "eth0").unwrap();
    let mut lease = Lease { public_ip: [192, 168, 77, 12].into(), ..paper_lease(200) };
    lease.vtep_mac = lease.vtep_mac.filter(|_| backend == VXLAN);
    learn(&cluster, &lease, NOTICE);
    let pod = cluster.pod(0).unwrap().clone();
    let _ = pod.namespace.run("ping", "-c 5 -i 0.1 -W 1 10.5.200.1");
    wait_told(&cluster.members[0], |answer| is_obeyed(answer, backend));
    assert_eq!(sent(&capture, &cluster.members[0], port_of(backend)), 0, "packets leave against the policy");
    cluster.members.truncate(1);
}
