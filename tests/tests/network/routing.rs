//! Packets of the tunnel go where the host's routing table leads them, from the address that the host announces, and
//! are received on every interface by which others reach it.

use std::time::Duration;

use flannel_tests::cluster::{Cluster, all_pairs, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases;
use flannel_tests::network::extra::{self, Tun};
use flannel_tests::network::{Host, HostOptions, Place};
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::inject::{Injector, Inner};
use flannel_tests::traffic::{Endpoint, Ping, Stream};
use flannel_tests::wait;
use rstest::rstest;

use crate::guard::{COUNT, PORT, arrivals};
use crate::{UDP, VXLAN, format_to, plan};

/// The extra links between the hosts.
const SECOND: u8 = 99;
const THIRD: u8 = 98;
/// Packets a second of a stream.
const RATE: u32 = 1000;

/// Two hosts that do not reach one another by `eth0`, but by other interfaces.
fn separated(backend: &str, flags: &[&str]) -> Cluster {
    let plan = flags.iter().fold(plan(backend), |plan, flag| plan.with_flag(flag));
    let cluster = Cluster::start(&plan).unwrap();
    let hosts = hosts(&cluster);
    extra::switch(&cluster.network, &hosts, SECOND).unwrap();
    extra::switch(&cluster.network, &hosts, THIRD).unwrap();
    separate(&cluster);
    cluster
}

fn hosts(cluster: &Cluster) -> Vec<&Host> {
    cluster.members.iter().map(|member| &member.node.host).collect()
}

fn separate(cluster: &Cluster) {
    for host in hosts(cluster) {
        cluster.network.lan().run("bridge", &format!("link set dev {} isolated on", host.name)).unwrap();
    }
}

/// Runs `ip` on both hosts with these arguments, in which `PEER` stands for the other host's address on the near
/// segment, `SECOND` and `THIRD` for those on the extra links, and `LOCAL6` and `PEER6` for link-local ones of either.
fn route(cluster: &Cluster, arguments: &str) {
    let hosts = hosts(cluster);
    for (host, peer) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
        let link_local = |host: &Host| format!("fe80::{}", host.address.octets()[3]);
        let arguments = arguments
            .replace("PEER6", &link_local(peer))
            .replace("LOCAL6", &link_local(host))
            .replace("PEER", &peer.address.to_string())
            .replace("SECOND", &extra::address(peer, SECOND).to_string())
            .replace("THIRD", &extra::address(peer, THIRD).to_string());
        host.namespace.ip(&arguments).unwrap();
    }
}

/// Packets of the tunnel that an interface has received.
fn received(host: &Host, interface: &str) -> u64 {
    let all = host.namespace.proc_net("dev").unwrap();
    let line = all.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn reach(cluster: &Cluster) {
    check_reached(&all_pairs(&cluster.nodes())).unwrap();
}

/// The interface of the outer route, by `flannelctl explain`.
fn explained(cluster: &Cluster) -> String {
    let (from, to) = (cluster.pod(0).unwrap().address, cluster.pod(1).unwrap().address);
    let answer = cluster.members[0].daemon.ctl_json(&format!("explain {from} {to}")).unwrap();
    answer["outer_route"].as_str().unwrap().to_owned()
}

#[rstest]
#[case::route(&["route add PEER via SECOND dev eth99"])]
#[case::rule(&["route add PEER via SECOND dev eth99 table 100", "rule add to PEER lookup 100"])]
#[case::rule_of_the_port(&[
    "route add PEER via SECOND dev eth99 table 100",
    "rule add ipproto udp dport 8000-9000 lookup 100",
])]
#[case::next_hop_object(&["nexthop add id 7 via SECOND dev eth99", "route add PEER nhid 7"])]
#[case::several(&["route add PEER nexthop via SECOND dev eth99 nexthop via THIRD dev eth98"])]
#[case::group(&[
    "nexthop add id 7 via SECOND dev eth99",
    "nexthop add id 8 via THIRD dev eth98",
    "nexthop add id 9 group 7/8",
    "route add PEER nhid 9",
])]
fn a_peer_is_reached_as_the_routing_table_says(
    #[values(VXLAN, UDP)] backend: &str,
    #[values("auto", "off")] bypass: &str,
    #[case] routes: &[&str],
) {
    let cluster = separated(backend, &[&format!("--pod-bypass={bypass}")]);
    routes.iter().for_each(|arguments| route(&cluster, arguments));
    reach(&cluster);
    let explained = explained(&cluster);
    assert!(explained.contains("dev eth99") || explained.contains("dev eth98"), "{explained}");
    let known = cluster.members[0].daemon.ctl_json("maps dump PEERS").unwrap().to_string();
    assert!(known.contains(r#""name":"eth9"#), "{known}");
}

#[rstest]
fn a_gateway_can_have_an_ipv6_address(#[values(VXLAN, UDP)] backend: &str) {
    let cluster = separated(backend, &[]);
    for host in hosts(&cluster) {
        host.namespace.sysctl("ipv6/conf/eth99/disable_ipv6", "0").unwrap();
    }
    route(&cluster, "address add LOCAL6/64 dev eth99 nodad");
    route(&cluster, "route add PEER via inet6 PEER6 dev eth99");
    reach(&cluster);
    assert!(explained(&cluster).contains("via fe80::12 dev eth99"), "{}", explained(&cluster));
}

/// Within 40 ms of the change, and 10 ms that clocks of programs lag.
#[rstest]
fn a_change_of_routes_is_followed_at_once(
    #[values(VXLAN, UDP)] backend: &str,
    #[values("auto", "off")] bypass: &str,
) {
    let cluster = Cluster::start(&plan(backend).with_flag(&format!("--pod-bypass={bypass}"))).unwrap();
    extra::switch(&cluster.network, &hosts(&cluster), SECOND).unwrap();
    let both = hosts(&cluster);
    let by_second = |host: &Host, peer: &Host| (host.clone(), extra::address(peer, SECOND));
    for (host, peer) in [by_second(both[0], both[1]), by_second(both[1], both[0])] {
        // The neighbour is known beforehand.
        Ping::default().send_to(&host.endpoint(), peer).unwrap();
    }
    reach(&cluster);
    wait::until_true("the second interface to be served", Duration::from_secs(5), || {
        let hooks = cluster.members[1].daemon.ctl("status").unwrap();
        hooks.matches("_decap-").count() == 2
    })
    .unwrap();
    let before = received(both[1], "eth99");
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), RATE).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    route(&cluster, "route add PEER via SECOND dev eth99");
    std::thread::sleep(Duration::from_millis(100));
    // From now on no packet arrives by eth0.
    separate(&cluster);
    std::thread::sleep(Duration::from_millis(900));
    let losses = stream.stop().unwrap();
    assert_eq!(losses.unexcused(), 0, "{losses:?}");
    let by_second = received(both[1], "eth99") - before;
    assert!(by_second > u64::from(RATE) / 2, "{by_second} packets by the second interface");
}

#[rstest]
fn packets_that_no_route_leads_on_are_dropped_under_their_reason(#[values(VXLAN, UDP)] backend: &str) {
    let cluster = Cluster::start(&plan(backend)).unwrap();
    reach(&cluster);
    route(&cluster, "route add unreachable PEER");
    let lost = Ping { count: 5, ..Ping::default() }.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    assert!(lost.unwrap().check().is_err());
    assert!(cluster.members[0].daemon.count("encap", "no_route").unwrap() > 0);
    route(&cluster, "route del unreachable PEER");
    reach(&cluster);
}

/// The way to a host need not be the way back.
#[rstest]
fn packets_are_received_on_every_interface(
    #[values(VXLAN, UDP)] backend: &str,
    #[values("auto", "clsact", "xdp")] hook: &str,
) {
    let cluster = Cluster::start(&plan(backend).with_flag(&format!("--datapath-hook={hook}"))).unwrap();
    let both = hosts(&cluster);
    extra::switch(&cluster.network, &both, SECOND).unwrap();
    let there = format!("route add {} via {} dev eth99", both[1].address, extra::address(both[1], SECOND));
    both[0].namespace.ip(&there).unwrap();
    reach(&cluster);
    let (before, back) = (received(both[1], "eth99"), received(both[0], "eth99"));
    Ping { count: 20, ..Ping::default() }
        .send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap())
        .unwrap()
        .check()
        .unwrap();
    assert!(received(both[1], "eth99") - before >= 20, "they do not come by the second interface");
    assert!(received(both[0], "eth99") - back < 10, "answers come by the first one");
}

#[rstest]
fn the_guard_is_as_strict_on_every_interface(#[values(VXLAN, UDP)] backend: &str) {
    let cluster = separated(backend, &[]);
    route(&cluster, "route add PEER via SECOND dev eth99");
    reach(&cluster);
    let stranger = Host::new(&cluster.network, Place::Near, 9, HostOptions::default()).unwrap();
    extra::plug_in(&cluster.network, &stranger, SECOND).unwrap();
    let (victim, by_second) = (hosts(&cluster)[1], extra::address(hosts(&cluster)[1], SECOND));
    stranger.namespace.ip(&format!("route add {} via {by_second} dev eth99", victim.address)).unwrap();
    let stranger = Endpoint { address: extra::address(&stranger, SECOND), ..stranger.endpoint() };
    let daemon = &cluster.members[1].daemon;
    let count = |reason| daemon.count("decap", reason).unwrap();
    let (source, destination) = (cluster.pod(0).unwrap().address, cluster.pod(1).unwrap().address);
    let inner = Inner { source, destination, port: PORT, ecn: 0 };

    let pod = Capture::start(&cluster.pod(1).unwrap().namespace, "eth0").unwrap();
    let before = count("unknown_outer_source");
    let injector = Injector::new(&stranger, &victim.endpoint(), format_to(&cluster, 1)).unwrap();
    injector.send(&inner, 0, COUNT).unwrap();
    assert_eq!(arrivals(&pod), 0, "a stranger's packets reach the pod");
    assert_eq!(count("unknown_outer_source") - before, COUNT as u64);

    // No packet of a tunnel is addressed to another address than the announced one.
    let other = Endpoint { address: by_second, ..victim.endpoint() };
    let peer = hosts(&cluster)[0];
    let injector = Injector::new(&peer.endpoint(), &other, format_to(&cluster, 1)).unwrap();
    injector.send(&inner, 0, COUNT).unwrap();
    assert_eq!(arrivals(&pod), 0, "packets for another address reach the pod");
}

/// Restarts every daemon with another flag. Meanwhile its lease expires: whoever comes with another interface and another
/// address does not have it any more, and gets the same subnet again only if that is free.
fn restart(cluster: &mut Cluster, flag: impl Fn(&Host) -> String) {
    for member in &mut cluster.members {
        assert!(member.daemon.terminate().unwrap().success());
        let flag = flag(&member.node.host);
        member.daemon.settings().flags.push(flag);
    }
    for lease in leases::list(&cluster.etcd, PREFIX).unwrap() {
        cluster.etcd.delete(&lease.key(PREFIX)).unwrap();
    }
    for member in &mut cluster.members {
        member.daemon.restart().unwrap();
    }
    for member in &mut cluster.members {
        member.daemon.wait_ready().unwrap();
        member.daemon.wait_attached(&member.node).unwrap();
    }
}

#[rstest]
fn a_link_without_ethernet_headers_is_an_underlay(
    #[values(VXLAN, UDP)] backend: &str,
    #[values("auto", "clsact", "xdp")] hook: &str,
    #[values("auto", "off")] bypass: &str,
) {
    let plan = plan(backend).with_flag(&format!("--datapath-hook={hook}"));
    let mut cluster = Cluster::start(&plan.with_flag(&format!("--pod-bypass={bypass}"))).unwrap();
    let _tun = Tun::join(hosts(&cluster)[0], hosts(&cluster)[1], SECOND).unwrap();
    separate(&cluster);
    restart(&mut cluster, |_| "--iface=tun0".to_owned());
    reach(&cluster);
    assert!(explained(&cluster).contains("dev tun0"), "{}", explained(&cluster));
    let losses = stream(&cluster);
    assert_eq!(losses.unexcused(), 0, "{losses:?}");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

fn stream(cluster: &Cluster) -> flannel_tests::traffic::Losses {
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), RATE).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    stream.stop().unwrap()
}

#[rstest]
fn a_peer_can_be_reached_by_a_link_without_ethernet_headers(#[values(VXLAN, UDP)] backend: &str) {
    let cluster = Cluster::start(&plan(backend)).unwrap();
    let _tun = Tun::join(hosts(&cluster)[0], hosts(&cluster)[1], SECOND).unwrap();
    separate(&cluster);
    route(&cluster, "route add PEER dev tun0");
    reach(&cluster);
}

/// Where an announced address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    /// One more of the underlay's interface.
    Secondary,
    /// One of the loopback interface, to which others have a route.
    Loopback,
}

#[rstest]
fn an_announced_address_is_the_outer_source_where_it_is_the_hosts_own(
    #[values(VXLAN, UDP)] backend: &str,
    #[values(Announced::Secondary, Announced::Loopback)] announced: Announced,
) {
    let mut cluster = Cluster::start(&plan(backend)).unwrap();
    let address = |host: &Host| match announced {
        Announced::Secondary => format!("192.168.77.1{}", host.address.octets()[3]),
        Announced::Loopback => format!("192.168.200.{}", host.address.octets()[3]),
    };
    let all = hosts(&cluster);
    for (host, peer) in [(all[0], all[1]), (all[1], all[0])] {
        match announced {
            Announced::Secondary => {
                host.namespace.ip(&format!("address add {}/24 dev eth0", address(host))).unwrap();
            }
            Announced::Loopback => {
                host.namespace.ip(&format!("address add {}/32 dev lo", address(host))).unwrap();
                host.namespace.ip(&format!("route add {} via {}", address(peer), peer.address)).unwrap();
            }
        }
    }
    restart(&mut cluster, |host| format!("--public-ip={}", address(host)));
    reach(&cluster);
    let (from, to) = (cluster.pod(0).unwrap().address, cluster.pod(1).unwrap().address);
    let answer = cluster.members[0].daemon.ctl_json(&format!("explain {from} {to}")).unwrap();
    assert_eq!(answer["outer"]["source"], address(hosts(&cluster)[0]));
    assert_eq!(cluster.members[1].daemon.count("decap", "unknown_outer_source").unwrap(), 0);
    assert_eq!(cluster.members[1].daemon.count("decap", "inner_source_mismatch").unwrap(), 0);
}
