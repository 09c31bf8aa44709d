//! The daemon may go and come: no packet is lost.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Member, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::traffic::Stream;
use flannel_tests::wait;
use rstest::rstest;

use crate::{HOST_GW, UDP, VXLAN, cluster};

/// Datagrams per second.
const RATE: u32 = 5000;

fn end_by_sigterm(daemon: &mut Daemon) {
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
}

fn end_by_sigkill(daemon: &mut Daemon) {
    daemon.kill().unwrap();
}

/// Waits until the program at the pods' bridge is in its place. Where that takes a clsact qdisc the kernel stops
/// the bridge for some milliseconds, once in its life, which is no restart's doing.
fn wait_for_bridge(member: &Member) {
    wait::until_true("the program at the bridge", Duration::from_secs(5), || {
        fs::read_to_string(member.daemon.log()).unwrap().contains(r#"attached program="bridge""#)
    })
    .unwrap();
}

/// What the programs of all hosts say became of the packets.
fn counters(cluster: &Cluster) -> String {
    cluster.members.iter().map(|member| member.daemon.ctl("counters").unwrap()).collect()
}

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_clsact(UDP, "clsact")]
#[case::udp_xdp(UDP, "xdp")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
#[case::host_gw(HOST_GW, "auto")]
fn nothing_is_lost_while_daemons_go_and_come(#[case] backend: &str, #[case] hook: &str) {
    let mut cluster = cluster(backend, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    if backend != HOST_GW {
        cluster.members.iter().for_each(wait_for_bridge);
    }
    let streams: Vec<Stream> =
        pairs.iter().map(|(from, to)| Stream::start(from, to, RATE).unwrap()).collect();
    for end in [end_by_sigterm, end_by_sigkill] {
        for member in &mut cluster.members {
            sleep(Duration::from_millis(200));
            end(&mut member.daemon);
            sleep(Duration::from_millis(300));
            member.daemon.restart().unwrap();
            assert_eq!(member.daemon.wait_ready().unwrap(), member.node.file, "the subnet stays");
        }
    }
    sleep(Duration::from_millis(200));
    for ((from, to), stream) in pairs.iter().zip(streams) {
        let losses = stream.stop().unwrap();
        assert!(losses.sent > 5000, "{losses:?}");
        assert!(
            losses.lost == 0 && losses.duplicates == 0,
            "{} -> {}: {losses:?}\n{}",
            from.name,
            to.name,
            counters(&cluster)
        );
    }
    check_reached(&pairs).unwrap();
}
