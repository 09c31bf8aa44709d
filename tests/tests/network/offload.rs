//! What pods leave to the kernel, or do themselves: segmentation, checksums, fragments, tunnels of their own. All of it
//! arrives as it was sent, whether flows bypass the stack or not.

use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::{Offloads, allow_super_packets};
use flannel_tests::traffic::capture::{Capture, LONGEST_FRAME};
use flannel_tests::traffic::{Datagrams, Endpoint, Received, transfer};
use rstest::rstest;

use crate::bypass::{bypassed, start_served};
use crate::{HOST_GW, UDP, VXLAN, cluster};

/// Bytes of a file.
const FILE: u64 = 20_000_000;

/// Datagrams that the kernel is to cut.
pub const SEGMENTED: Datagrams = Datagrams { count: 100, payload: 40_000, segment: Some(1300) };
/// As long as may be: fragments.
const LONGEST: Datagrams = Datagrams { count: 20, payload: 65_507, segment: None };

/// Packets the first host's pods have sent by the bypass, or to the segmenter by it.
fn sent_by_bypass(cluster: &Cluster) -> u64 {
    let daemon = &cluster.members[0].daemon;
    bypassed(daemon).0 + daemon.count("pod_out", "to_segment").unwrap()
}

/// Fails unless the first host counts for the other, both ways, as many bytes as that payload and its headers have.
fn check_counted_for_the_peer(cluster: &Cluster, payload: u64) {
    let peers = cluster.members[0].daemon.ctl_json("peers").unwrap();
    for direction in ["sent_bytes", "received_bytes"] {
        let bytes = peers["peers"][0][direction].as_u64().unwrap();
        assert!((payload..payload * 5 / 4).contains(&bytes), "{direction}: {bytes} of {payload}");
    }
}

/// The pods, in both orders.
fn both_ways(cluster: &Cluster) -> [(&Endpoint, &Endpoint); 2] {
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    [(one, other), (other, one)]
}

/// Mean length of what arrives at a machine during `work`.
fn mean_length(at: &Endpoint, work: impl FnOnce()) -> u64 {
    let before = Received::by(&at.namespace, "eth0").unwrap();
    work();
    Received::by(&at.namespace, "eth0").unwrap().mean_since(&before)
}

/// Whether datagrams that the kernel is to cut get to the pod uncut.
fn stay_whole(backend: &str, hook: &str, offloads: Offloads) -> bool {
    backend != UDP && offloads == Offloads::All && hook != "xdp"
}

#[rstest]
#[case::udp(UDP, "auto", "auto", Offloads::All)]
#[case::udp_clsact(UDP, "clsact", "off", Offloads::All)]
#[case::udp_on_a_card(UDP, "auto", "off", Offloads::Receive)]
#[case::udp_xdp(UDP, "xdp", "auto", Offloads::All)]
#[case::vxlan(VXLAN, "auto", "auto", Offloads::All)]
#[case::vxlan_clsact(VXLAN, "clsact", "off", Offloads::All)]
#[case::vxlan_on_a_card(VXLAN, "auto", "off", Offloads::Receive)]
#[case::vxlan_xdp(VXLAN, "xdp", "auto", Offloads::All)]
#[case::host_gw(HOST_GW, "auto", "auto", Offloads::All)]
fn datagrams_keep_their_boundaries(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] bypass: &str,
    #[case] offloads: Offloads,
) {
    let cluster = start_served(backend, hook, bypass, offloads);
    for (from, to) in both_ways(&cluster) {
        // The kernel cuts them, as late as it can: with the UDP backend on the host, and on a card's wire.
        let mean = mean_length(to, || SEGMENTED.send(from, to).unwrap());
        assert_eq!(mean > 20_000, stay_whole(backend, hook, offloads), "mean length {mean}");
        LONGEST.send(from, to).unwrap();
        let sizes = [1, 1399, 1421, 1422, 1423, 1443, 1444, 1445, 2845];
        for payload in sizes {
            Datagrams { count: 2, payload, segment: None }.send(from, to).unwrap();
        }
    }
    if stay_whole(backend, hook, offloads) && backend == VXLAN {
        let left = cluster.members[0].daemon.count("decap", "left_to_device").unwrap();
        assert!(left >= 100, "{left} super-packets of datagrams were left to the kernel's device");
    }
    if backend != HOST_GW {
        check_counted_for_the_peer(&cluster, SEGMENTED.bytes() + LONGEST.bytes());
    }
    let bypassed = sent_by_bypass(&cluster);
    assert_eq!(bypassed > 50, bypass == "auto", "{bypassed} packets bypassed the stack");
}

/// A pod that does everything by itself; then one with a tunnel of its own.
#[rstest]
#[case::udp(UDP, "auto", Offloads::All)]
#[case::udp_no_bypass(UDP, "off", Offloads::All)]
#[case::vxlan(VXLAN, "auto", Offloads::All)]
#[case::vxlan_no_bypass(VXLAN, "off", Offloads::All)]
#[case::vxlan_on_a_card(VXLAN, "auto", Offloads::Receive)]
#[case::host_gw(HOST_GW, "auto", Offloads::All)]
fn pods_that_do_it_themselves(#[case] backend: &str, #[case] bypass: &str, #[case] offloads: Offloads) {
    let cluster = start_served(backend, "auto", bypass, offloads);
    let ways = both_ways(&cluster);
    let ends = [1, 2].map(|last| Ipv4Addr::new(172, 31, 0, last));
    for ((pod, peer), address) in ways.iter().zip(ends) {
        let (local, remote) = (pod.address, peer.address);
        let link = format!("link add inner type vxlan id 7 local {local} remote {remote} dstport 4789");
        for command in [&link, &format!("address add {address}/24 dev inner"), "link set inner up"] {
            pod.namespace.ip(command).unwrap();
        }
    }
    let inside = [0, 1].map(|end| Endpoint { address: ends[end], ..ways[end].0.clone() });
    transfer(&inside[0], &inside[1], FILE).unwrap();
    transfer(&inside[1], &inside[0], FILE).unwrap();
    if backend == VXLAN {
        let left = cluster.members[0].daemon.count("encap", "left_to_device").unwrap();
        assert!(left > 10, "{left} super-packets of the pod's tunnel were left to the kernel's device");
    }
    if backend != HOST_GW {
        check_counted_for_the_peer(&cluster, FILE);
    }

    cluster
        .pod(0)
        .unwrap()
        .namespace
        .run("ethtool", "-K eth0 tso off gso off gro off tx off rx off")
        .unwrap();
    for (from, to) in ways {
        transfer(from, to, FILE).unwrap();
    }
    let bypassed = sent_by_bypass(&cluster);
    assert_eq!(bypassed > 100, bypass == "auto", "{bypassed} packets bypassed the stack");
}

/// Longer super-packets than the length field of a packet can say.
#[rstest]
#[case::udp(UDP, "auto", Offloads::All)]
#[case::udp_no_bypass(UDP, "off", Offloads::All)]
#[case::udp_on_a_card(UDP, "off", Offloads::Receive)]
#[case::vxlan(VXLAN, "auto", Offloads::All)]
#[case::vxlan_no_bypass(VXLAN, "off", Offloads::All)]
#[case::vxlan_on_a_card(VXLAN, "off", Offloads::Receive)]
#[case::host_gw(HOST_GW, "auto", Offloads::All)]
fn super_packets_beyond_64_kilobytes(
    #[case] backend: &str,
    #[case] bypass: &str,
    #[case] offloads: Offloads,
) {
    let cluster = start_served(backend, "auto", bypass, offloads);
    let allow = |machine, interface| allow_super_packets(machine, interface, 185_000).unwrap();
    let lan = cluster.network.lan();
    allow(lan, "lan");
    for member in &cluster.members {
        let host = &member.node.host;
        allow(lan, &host.name);
        let devices: &[&str] = match backend {
            UDP => &["flannel0-in", "flannel0-out"],
            VXLAN => &["flannel.1"],
            _ => &[],
        };
        devices.iter().chain(&["eth0", "cni0", "pod1"]).for_each(|device| allow(&host.namespace, device));
        allow(&member.node.pods[0].endpoint.namespace, "eth0");
    }
    for (from, to) in both_ways(&cluster) {
        let pod = Capture::start(&to.namespace, "eth0").unwrap();
        let mean = mean_length(to, || assert_eq!(transfer(from, to, FILE).unwrap().bytes, FILE));
        if offloads == Offloads::All {
            assert!(mean > 10_000, "mean length {mean}");
            let beyond = |frame: &[u8]| (frame.len() == LONGEST_FRAME).then_some(());
            pod.find("packet beyond 64 kB", Duration::from_secs(1), beyond).unwrap();
        }
    }
}

/// What the kernel's device takes out of the tunnel passes netfilter before. A rule there that sets marks, as the one of
/// wg-quick for every datagram, loses nothing.
#[rstest]
#[case::restored("-t mangle -A PREROUTING -p udp -j CONNMARK --restore-mark")]
#[case::set("-t mangle -A PREROUTING -p udp -j MARK --set-mark 0x4000")]
#[case::like_ours("-t mangle -A PREROUTING -p udp -j MARK --set-mark 0xe5")]
fn marks_of_others_lose_nothing_that_is_left_to_the_device(#[case] rule: &str) {
    let cluster = cluster(VXLAN, "auto");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for member in &cluster.members {
        member.node.host.namespace.run("iptables", &format!("-w {rule}")).unwrap();
    }
    SEGMENTED.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap();
    let left = cluster.members[1].daemon.count("decap", "left_to_device").unwrap();
    assert!(left > 0, "nothing was left to the device");
}
