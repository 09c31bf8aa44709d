//! An underlay that is no card but a device on top of one.

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::network::{Host, HostOptions, Node, Place};
use flannel_tests::traffic::{Datagrams, Ping, transfer};
use rstest::rstest;

use crate::{UDP, VXLAN, plan};

/// A host whose `eth0` is a macvlan device on its card.
fn stacked_host(cluster: &Cluster, number: u8) -> Host {
    let host = Host::new(&cluster.network, Place::Near, number, HostOptions::default()).unwrap();
    let commands = [
        "link set eth0 down".to_owned(),
        "link set eth0 name card0".to_owned(),
        format!("address delete {}/24 dev card0", host.address),
        "link set card0 up".to_owned(),
        "link add eth0 link card0 type macvlan mode bridge".to_owned(),
        format!("address add {}/24 dev eth0", host.address),
        "link set eth0 up".to_owned(),
    ];
    commands.iter().for_each(|command| drop(host.namespace.ip(command).unwrap()));
    host
}

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_clsact(UDP, "clsact")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
fn a_tunnel_by_a_device_on_a_card(#[case] backend: &str, #[case] hook: &str) {
    let plan = plan(backend).with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    let host = stacked_host(&cluster, 3);
    let mut daemon = Daemon::start(&host, cluster.settings(&plan.flags)).unwrap();
    let file = daemon.wait_ready().unwrap();
    let node = Node::new(host, file, 1).unwrap();
    daemon.wait_attached(&node).unwrap();
    check_reached(&pod_pairs(&[cluster.nodes()[0], &node])).unwrap();
    let (ours, stacked) = (cluster.pod(0).unwrap(), node.endpoints().next().unwrap());
    for (from, to) in [(ours, stacked), (stacked, ours)] {
        let large = Ping { size: node.file.mtu, dont_fragment: true, ..Ping::default() };
        large.send(from, to).unwrap().check().unwrap();
        transfer(from, to, 20_000_000).unwrap();
        Datagrams { count: 20, payload: 40_000, segment: Some(1300) }.send(from, to).unwrap();
    }
    let taken = daemon.count("decap", "forwarded").unwrap() + daemon.count("decap", "bypassed").unwrap();
    assert!(taken > 100, "{taken} packets were decapsulated at TC");
    if hook == "xdp" {
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        let told = log.lines().find(|line| line.contains("WARN") && line.contains("XDP"));
        assert!(told.is_some_and(|line| line.contains("eth0")), "such a device takes no native XDP: {log}");
    }
}
