//! Hops are counted as with the kernel's vxlan device, and the outer header says what it should.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::traffic::Ping;
use flannel_tests::traffic::capture::Capture;
use rstest::rstest;

use crate::{UDP, VXLAN, cluster};

const SOON: Duration = Duration::from_secs(2);

#[rstest]
#[case::udp(UDP, "auto", 8285)]
#[case::udp_xdp(UDP, "xdp", 8285)]
#[case::vxlan(VXLAN, "auto", 8472)]
#[case::vxlan_clsact(VXLAN, "clsact", 8472)]
#[case::vxlan_xdp(VXLAN, "xdp", 8472)]
#[case::vxlan_xdp_generic(VXLAN, "xdp-generic", 8472)]
fn two_hops_and_a_fresh_outer_header(#[case] backend: &str, #[case] hook: &str, #[case] port: u16) {
    let cluster = cluster(backend, hook);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let wire = Capture::start(cluster.network.lan(), "h2").unwrap();
    let pod = Capture::start(&to.namespace, "eth0").unwrap();
    let pong = Ping::default().send(from, to).unwrap();
    assert_eq!(pong.ttl, Some(62), "{pong:?}");

    let arrived = pod.find("echo request", SOON, |frame| {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(NetSlice::Ipv4(ip)) = packet.net else { return None };
        (ip.header().source_addr() == from.address).then_some(ip.header().ttl())
    });
    assert_eq!(arrived.unwrap(), 62);

    let underlay = [0, 1].map(|member| cluster.members[member].node.host.address);
    let outer = wire.find("tunnel packet", SOON, |frame| {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport)
        else {
            return None;
        };
        let header = ip.header();
        (header.source_addr() == underlay[0] && header.destination_addr() == underlay[1])
            .then(|| (header.ttl(), header.dcp().value(), udp.source_port(), udp.destination_port()))
    });
    let (ttl, dscp, source_port, destination_port) = outer.unwrap();
    assert_eq!((ttl, dscp, destination_port), (64, 0, port));
    if backend == UDP {
        assert_eq!(source_port, port);
    } else {
        assert!(source_port >= 0xc000, "{source_port}");
    }
}

#[rstest]
#[case::udp(UDP)]
#[case::vxlan(VXLAN)]
fn packets_without_hops_left_are_answered_by_the_host(#[case] backend: &str) {
    let cluster = cluster(backend, "auto");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let trace = |ttl| {
        from.namespace
            .command("ping")
            .unwrap()
            .args(["-n", "-c1", "-W1", "-t", ttl, &to.address.to_string()])
            .output()
            .unwrap()
    };
    let said = |ttl| String::from_utf8(trace(ttl).stdout).unwrap();
    let first = cluster.members[0].node.file.bridge;
    assert!(said("1").contains(&format!("From {first} icmp_seq=1 Time to live exceeded")), "{}", said("1"));
    assert!(said("2").contains("icmp_seq=1 Time to live exceeded"), "{}", said("2"));
    assert!(said("3").contains("1 received"), "{}", said("3"));
}
