//! The daemon may go and come: no packet is lost.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use flannel_datapath::PinDir;
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::wait::until_true;
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

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_clsact(UDP, "clsact")]
#[case::udp_xdp(UDP, "xdp")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
#[case::vxlan_xdp_generic(VXLAN, "xdp-generic")]
#[case::host_gw(HOST_GW, "auto")]
fn nothing_is_lost_while_daemons_go_and_come(#[case] backend: &str, #[case] hook: &str) {
    let mut cluster = cluster(backend, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    // Both ways between two hosts: more would be more than a small machine has time for.
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
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
    let losses = streams.map(|stream| stream.stop().unwrap());
    assert!(losses.iter().all(|losses| losses.sent > 5000 && losses.duplicates == 0), "{losses:?}");
    let counters: Vec<String> =
        cluster.members.iter().map(|member| member.daemon.ctl("counters").unwrap()).collect();
    assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}\n{}", counters.join("\n"));
    check_reached(&pairs).unwrap();
}

/// What a daemon finds after one with maps of another layout: programs in their places, and maps it cannot use. Every
/// packet passes by programs that know its peer nevertheless.
#[rstest]
#[case::udp(UDP, "auto")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
fn nothing_is_lost_when_the_layout_of_maps_is_another(#[case] backend: &str, #[case] hook: &str) {
    let mut cluster = cluster(backend, hook);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
    for member in &mut cluster.members {
        let pins = member.daemon.pin_dir().to_owned();
        member.daemon.kill().unwrap();
        let own = PinDir::maps(&pins);
        let of_another_build = pins.join("maps@999");
        fs::rename(&own, &of_another_build).unwrap();
        sleep(Duration::from_millis(200));
        member.daemon.restart().unwrap();
        member.daemon.wait_ready().unwrap();
        until_true("the other maps to be gone", Duration::from_secs(5), || !of_another_build.exists())
            .unwrap();
        assert!(own.join("PEERS").exists());
    }
    sleep(Duration::from_millis(200));
    let losses = streams.map(|stream| stream.stop().unwrap());
    assert!(losses.iter().all(|losses| losses.sent > 2000), "{losses:?}");
    assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}");
    let received =
        cluster.members[0].daemon.ctl_json("peers").unwrap()["peers"][0]["received_packets"].as_u64();
    assert!(received.unwrap() > 1000, "the programs of now count in the maps of now");
}
