//! Packets as large as may be pass; larger ones are answered with the size that may be.

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::{Offloads, Place};
use flannel_tests::traffic::Ping;
use rstest::rstest;

use crate::{DIRECT, HOST_GW, UDP, VXLAN, plan};

#[rstest]
#[case::udp(UDP, 1472, Place::Far, "auto")]
#[case::udp_no_bypass(UDP, 1472, Place::Near, "off")]
#[case::vxlan(VXLAN, 1450, Place::Far, "auto")]
#[case::vxlan_no_bypass(VXLAN, 1450, Place::Near, "off")]
#[case::direct_routing(DIRECT, 1450, Place::Far, "auto")]
#[case::host_gw(HOST_GW, 1500, Place::Near, "auto")]
fn packets_of_exactly_the_mtu_pass_and_larger_ones_are_answered(
    #[case] backend: &str,
    #[case] mtu: u32,
    #[case] place: Place,
    #[case] bypass: &str,
) {
    let mut plan = plan(backend).with_flag(&format!("--pod-bypass={bypass}"));
    plan.places.push(place);
    plan.host.offloads = Offloads::None;
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let ping = |size| Ping { count: 2, size, dont_fragment: true, ..Ping::default() };
    for (from, to) in pod_pairs(&cluster.nodes()) {
        ping(mtu).send(&from, &to).unwrap().check().unwrap();
        ping(100).send(&from, &to).unwrap().check().unwrap();
        let pong = ping(mtu + 1).send(&from, &to).unwrap();
        assert_eq!((pong.received, pong.mtu), (0, Some(mtu)), "the pod's own interface says so: {pong:?}");
    }
    assert!(cluster.members.iter().all(|member| member.node.file.mtu == mtu));

    // A pod whose interface takes more than the tunnel does.
    let (first, last) = (&cluster.members[0].node, &cluster.members[2].node);
    let (pod, target) = (&first.pods[0], &last.pods[0].endpoint);
    first.host.namespace.ip(&format!("link set {} mtu {}", pod.port, mtu + 100)).unwrap();
    first.host.namespace.ip(&format!("link set cni0 mtu {}", mtu + 100)).unwrap();
    pod.endpoint.namespace.ip(&format!("link set eth0 mtu {}", mtu + 100)).unwrap();
    let pong = Ping { count: 1, ..ping(mtu + 1) }.send(&pod.endpoint, target).unwrap();
    assert_eq!((pong.received, pong.mtu), (0, Some(mtu)), "{pong:?}");
    assert!(pong.errors[0].starts_with(&format!("From {}", first.file.bridge)), "{pong:?}");
    let whole = Ping { dont_fragment: false, size: mtu + 1, ..Ping::default() };
    whole.send(&pod.endpoint, target).unwrap().check().unwrap();
}
