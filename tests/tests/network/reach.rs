//! Every pod and every host reaches every other, whatever the backend, the underlay and the hooks.

use std::fs;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan, all_pairs, check_reached};
use flannel_tests::network::{HostOptions, Place};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;
use rstest::rstest;

use crate::{DIRECT, HOST_GW, STRICT, UDP, UDP_DIRECT, VXLAN, plan};

#[rstest]
#[case::udp(UDP, "auto", HostOptions::default())]
#[case::udp_clsact(UDP, "clsact", STRICT)]
#[case::udp_xdp(UDP, "xdp", STRICT)]
#[case::udp_tcx(UDP, "tcx", STRICT)]
#[case::vxlan(VXLAN, "auto", HostOptions::default())]
#[case::vxlan_clsact(VXLAN, "clsact", STRICT)]
#[case::vxlan_xdp(VXLAN, "xdp", STRICT)]
#[case::vxlan_tcx(VXLAN, "tcx", STRICT)]
#[case::direct_routing(DIRECT, "auto", STRICT)]
#[case::udp_direct_routing(UDP_DIRECT, "auto", STRICT)]
#[case::direct_routing_xdp(DIRECT, "xdp", HostOptions::default())]
fn everybody_across_a_router(#[case] backend: &str, #[case] hook: &str, #[case] host: HostOptions) {
    let plan = Plan { host, pods: 2, ..plan(backend) };
    let cluster =
        Cluster::start(&plan.with_far_host().with_flag(&format!("--datapath-hook={hook}"))).unwrap();
    check_reached(&all_pairs(&cluster.nodes())).unwrap();
}

#[rstest]
#[case::rp_filter_off(HostOptions::default())]
#[case::rp_filter_strict(STRICT)]
fn host_gw_on_one_segment(#[case] host: HostOptions) {
    let places = vec![Place::Near; 3];
    let cluster = Cluster::start(&Plan { host, places, pods: 2, ..plan(HOST_GW) }).unwrap();
    check_reached(&all_pairs(&cluster.nodes())).unwrap();
}

#[test]
fn host_gw_says_who_is_behind_a_router() {
    let cluster = Cluster::start(&plan(HOST_GW).with_far_host()).unwrap();
    check_reached(&all_pairs(&cluster.nodes()[..2])).unwrap();
    let far = &cluster.members[2].node;
    let expected = format!("peer {} is not on the link of eth0", far.host.address);
    wait::until_true("the daemon to tell", Duration::from_secs(5), || {
        fs::read_to_string(cluster.members[0].daemon.log()).unwrap().contains(&expected)
    })
    .unwrap();
    let routes = cluster.members[0].node.host.namespace.ip("route show").unwrap();
    assert!(!routes.contains(&far.file.subnet.to_string()), "{routes}");
}

#[rstest]
#[case::vxlan(DIRECT, "dev flannel.1 onlink")]
#[case::udp(UDP_DIRECT, "")]
fn direct_routing_tunnels_only_across_the_router(#[case] backend: &str, #[case] route_to_far: &str) {
    let cluster = Cluster::start(&plan(backend).with_far_host()).unwrap();
    check_reached(&all_pairs(&cluster.nodes())).unwrap();
    let first = &cluster.members[0];
    let route = |member: usize| {
        let subnet = cluster.members[member].node.file.subnet;
        first.node.host.namespace.ip(&format!("route show {subnet}")).unwrap()
    };
    assert!(route(1).contains("via 192.168.77.12 dev eth0"), "{}", route(1));
    // With udp one route brings everybody behind routers to the programs.
    assert_eq!(route(2).is_empty(), route_to_far.is_empty(), "{}", route(2));
    assert!(route(2).contains(route_to_far), "{}", route(2));
    let sent = first.daemon.count("encap", "forwarded").unwrap();
    Ping { count: 5, ..Ping::default() }.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap();
    assert_eq!(first.daemon.count("encap", "forwarded").unwrap(), sent, "nothing more is encapsulated");
}
