//! A router on the path carries less than the hosts' interfaces say.

use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, HostOptions, Place, SubnetFile};
use flannel_tests::traffic::{Datagrams, Endpoint, Ping, transfer};
use flannel_tests::vxlan_host::{self, VxlanHost};
use flannel_tests::wait;
use rstest::rstest;

use crate::{UDP, VXLAN};

/// What it carries.
const PATH: u32 = 1400;

/// A host on each side of a router with a narrow link to both.
fn start(backend: &str, flags: &[&str]) -> Cluster {
    let plan = Plan { places: vec![Place::Near, Place::Far], is_counted: true, ..Plan::new(backend) };
    let cluster = Cluster::start(&flags.iter().fold(plan, |plan, flag| plan.with_flag(flag))).unwrap();
    for route in ["192.168.77.0/24 dev eth0", "192.168.88.0/24 dev far"] {
        cluster.network.router().ip(&format!("route replace {route} mtu {PATH}")).unwrap();
    }
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster
}

fn longest(size: u32) -> Ping {
    Ping { count: 2, size, dont_fragment: true, ..Ping::default() }
}

/// Everything arrives between two pods, as large as their interfaces take.
fn check_large(one: &Endpoint, other: &Endpoint, mtu: u32) {
    for (from, to) in [(one, other), (other, one)] {
        longest(mtu).send(from, to).unwrap().check().unwrap();
        transfer(from, to, 5_000_000).unwrap();
        Datagrams { count: 100, payload: 1_400, segment: None }.send(from, to).unwrap();
        // Equal ones: one that fits would overtake those in pieces.
        Datagrams { count: 10, payload: 28_000, segment: Some(1_400) }.send(from, to).unwrap();
        Datagrams { count: 10, payload: 30_000, segment: None }.send(from, to).unwrap();
    }
}

#[rstest]
#[case::guarded("auto", "auto", "strict")]
#[case::guarded_no_bypass("clsact", "off", "strict")]
#[case::guarded_xdp("xdp", "auto", "peer")]
#[case::no_guard("auto", "auto", "off")]
fn vxlan_goes_on_in_fragments(#[case] hook: &str, #[case] bypass: &str, #[case] guard: &str) {
    let flags = [
        &format!("--datapath-hook={hook}")[..],
        &format!("--pod-bypass={bypass}"),
        &format!("--guard={guard}"),
    ];
    let cluster = start(VXLAN, &flags);
    check_large(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), vxlan_host::MTU);
    let receiver = &cluster.members[1].daemon;
    assert!(receiver.count("decap", "reassemble").unwrap() > 100);
    assert_eq!(receiver.count("device", "not_guarded").unwrap(), 0);
}

/// A host behind the router with the kernel's device alone.
fn stock_host(cluster: &Cluster) -> VxlanHost {
    let host = Host::new(&cluster.network, Place::Far, 5, HostOptions::default()).unwrap();
    let file = SubnetFile {
        subnet: "10.5.250.0/24".parse().unwrap(),
        bridge: [10, 5, 250, 1].into(),
        ..cluster.members[0].node.file
    };
    let stock = VxlanHost::join(&host, &cluster.etcd, PREFIX, file, 1).unwrap();
    stock.learn(&cluster.etcd, PREFIX).unwrap();
    check_reached(&pod_pairs(&[cluster.nodes()[0], &stock.node])).unwrap();
    stock
}

#[test]
fn so_does_the_kernels_own_device() {
    let cluster = start(VXLAN, &[]);
    let stock = stock_host(&cluster);
    check_large(cluster.pod(0).unwrap(), stock.node.endpoints().next().unwrap(), vxlan_host::MTU);
}

/// Pods of either host do not learn of it, and continue.
#[test]
fn the_mtu_of_a_hosts_route_to_a_peer_is_not_looked_at() {
    let cluster = start(VXLAN, &[]);
    let stock = stock_host(&cluster);
    let ours = &cluster.members[0].node;
    let narrow = |host: &Host, route: &str| {
        host.namespace.ip(&format!("route replace {route} mtu lock {PATH}")).unwrap();
    };
    narrow(&ours.host, "192.168.88.0/24 via 192.168.77.254");
    narrow(&stock.node.host, "192.168.77.0/24 via 192.168.88.1");
    check_large(cluster.pod(0).unwrap(), stock.node.endpoints().next().unwrap(), vxlan_host::MTU);
}

/// The pieces of the other format are lost, until the interfaces say what the path carries.
#[rstest]
#[case::udp(UDP, "auto", PATH - 28)]
#[case::udp_no_bypass(UDP, "off", PATH - 28)]
#[case::vxlan(VXLAN, "auto", PATH - 50)]
fn pods_are_told_what_fits_once_the_interfaces_say(
    #[case] backend: &str,
    #[case] bypass: &str,
    #[case] fits: u32,
) {
    let cluster = start(backend, &[&format!("--pod-bypass={bypass}")]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    if backend == UDP {
        assert_eq!(longest(1472).send(from, to).unwrap().received, 0);
        assert!(cluster.members[1].daemon.count("decap", "fragment_unsupported").unwrap() > 0);
        longest(fits).send(from, to).unwrap().check().unwrap();
    }
    for member in &cluster.members {
        member.node.host.namespace.ip(&format!("link set eth0 mtu {PATH}")).unwrap();
    }
    wait::until("the pod to be told", Duration::from_secs(5), || {
        let pong = longest(fits + 1).send(from, to)?;
        anyhow::ensure!((pong.received, pong.mtu) == (0, Some(fits)), "{pong:?}");
        Ok(())
    })
    .unwrap();
    longest(fits).send(from, to).unwrap().check().unwrap();
    for (from, to) in [(from, to), (to, from)] {
        transfer(from, to, 5_000_000).unwrap();
    }
}
