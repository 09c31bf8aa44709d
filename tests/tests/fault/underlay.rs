//! The interface that carries the tunnel flaps, moves or is another one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Member};
use flannel_tests::network::SubnetFile;
use flannel_tests::traffic::Ping;
use rstest::rstest;

use crate::scenario::{STRANGER, Scenario, time_until};
use crate::sight::{UDP, VXLAN, peers, plan};

/// Packets that have no route are dropped for this reason.
const NO_ROUTE: &[&str] = &["no_route"];
/// Packets flow again so soon after the underlay is back: sooner than by the next sweep, after 10 s.
const RETURN: Duration = Duration::from_secs(3);
/// For so long it is down.
const DOWN: Duration = Duration::from_secs(1);

fn ip(member: &Member, arguments: &str) {
    member.node.host.namespace.ip(arguments).unwrap();
}

/// Waits until a packet comes back from a peer's pod.
fn reached(cluster: &Cluster) -> Duration {
    let since = Instant::now();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let ping = Ping { patience: Duration::from_millis(100), ..Ping::default() };
    let answers = || ping.send(from, to).and_then(|pong| pong.check()).is_ok();
    time_until("a peer's pod to be reached", since, RETURN, answers)
}

#[rstest]
#[case::vxlan("eth0 down for 1 s (vxlan)", VXLAN)]
#[case::udp("eth0 down for 1 s (udp)", UDP)]
fn flap(#[case] name: &str, #[case] backend: &str) {
    let mut cluster = Cluster::start(&plan(backend)).unwrap();
    let scenario = Scenario::new(name).with_outage(DOWN).until_mended().with_drops(NO_ROUTE);
    scenario.play(&mut cluster, |cluster| {
        let host = &cluster.members[0];
        ip(host, "link set eth0 down");
        sleep(DOWN);
        ip(host, "link set eth0 up");
        // The kernel takes routes by a gateway away with the link.
        ip(host, "route replace default via 192.168.77.254");
        reached(cluster)
    });
}

#[test]
fn renumbered() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let scenario = Scenario::new("eth0 renumbered, .11 to .41").until_mended().with_drops(STRANGER);
    scenario.play(&mut cluster, |cluster| {
        let [host, peer] = &cluster.members[..] else { panic!("two hosts") };
        ip(host, "address del 192.168.77.11/24 dev eth0");
        ip(host, "address add 192.168.77.41/24 dev eth0");
        ip(host, "route replace default via 192.168.77.254");
        let since = Instant::now();
        let subnet = host.node.file.subnet.to_string();
        let moved = || peers(&peer.daemon).get(&subnet).is_some_and(|address| address == "192.168.77.41");
        time_until("the peer to know the new address", since, RETURN, moved);
        reached(cluster);
        since.elapsed()
    });
    let member = &cluster.members[0];
    assert_eq!(SubnetFile::read(&member.daemon.subnet_file()).unwrap(), member.node.file, "the subnet stays");
}

#[rstest]
#[case::vxlan(VXLAN, "flannel.1", 50)]
#[case::udp(UDP, "flannel0", 28)]
fn another_mtu(#[case] backend: &str, #[case] device: &str, #[case] overhead: u32) {
    let mut cluster = Cluster::start(&plan(backend)).unwrap();
    for mtu in [1400, 1500] {
        let name = format!("MTU of eth0 becomes {mtu} ({device})");
        Scenario::new(&name).play(&mut cluster, |cluster| {
            let host = &cluster.members[0];
            ip(host, &format!("link set eth0 mtu {mtu}"));
            let inner = mtu - overhead;
            let follows = || {
                let link = host.node.host.namespace.ip(&format!("link show {device}")).unwrap();
                let file = SubnetFile::read(&host.daemon.subnet_file()).unwrap();
                link.contains(&format!("mtu {inner} ")) && file.mtu == inner
            };
            time_until("device and subnet file to follow", Instant::now(), RETURN, follows)
        });
    }
}

#[test]
fn deleted_and_made_again() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let scenario =
        Scenario::new("eth0 deleted and made again").with_outage(DOWN).until_mended().with_drops(NO_ROUTE);
    scenario.play(&mut cluster, |cluster| {
        let host = &cluster.members[0];
        let link = host.node.host.namespace.ip("-brief link show eth0").unwrap();
        let mac = link.split_whitespace().nth(2).unwrap();
        ip(host, "link del eth0");
        sleep(DOWN);
        host.node.host.plug_in(&cluster.network).unwrap();
        // The hosts around would have to resolve the address of another again.
        ip(host, &format!("link set eth0 address {mac}"));
        reached(cluster)
    });
}
