//! The kernel owns the path over the underlay, though programs do not ask it for each packet.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::Stream;
use flannel_tests::wait;
use rstest::rstest;

use crate::{UDP, VXLAN, plan};

/// Packets a second.
const RATE: u32 = 1000;
/// A next hop is valid for 40 ms, and clocks of programs lag 10 ms behind. The rest is for the machine.
const LATEST: u64 = RATE as u64 / 10;

#[rstest]
#[case::vxlan(VXLAN, "off")]
#[case::vxlan_bypass(VXLAN, "auto")]
#[case::udp(UDP, "off")]
#[case::udp_bypass(UDP, "auto")]
fn a_host_with_another_ethernet_address_is_found(#[case] backend: &str, #[case] bypass: &str) {
    let plan = Plan { pods: 1, ..plan(backend) };
    let cluster = Cluster::start(&plan.with_flag(&format!("--pod-bypass={bypass}"))).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let receiver = &cluster.members[1].node.host.namespace;
    receiver.run("sysctl", "-qw net.ipv4.conf.eth0.arp_notify=1").unwrap();
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), RATE).unwrap();
    sleep(Duration::from_millis(500));
    receiver.ip("link set eth0 address 02:00:00:00:77:99").unwrap();
    sleep(Duration::from_millis(1500));
    let losses = stream.stop().unwrap();
    assert!(losses.unexcused() < (LATEST as f64 * wait::patience()) as u64, "{losses:?}");
    let known = cluster.members[0].daemon.ctl_json("maps dump PEERS").unwrap().to_string();
    assert!(known.contains("02:00:00:00:77:99"), "{known}");
}
