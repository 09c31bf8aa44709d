//! What pods leave to the kernel, or do themselves: segmentation, checksums, fragments. Everything arrives as it was
//! sent, by the fast path and by the long way.

use std::net::Ipv4Addr;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::traffic::{Datagrams, Endpoint, Received, transfer};
use rstest::rstest;

use crate::fast_path::{shortened, start_plan};
use crate::{HOST_GW, UDP, VXLAN};

/// Bytes of a file.
const FILE: u64 = 30_000_000;

/// Two hosts with a pod each.
fn start(backend: &str, fast_path: &str) -> Cluster {
    let plan = Plan { is_sociable: true, ..Plan::new(backend) };
    let plan = plan.with_flag(&format!("--pod-fast-path={fast_path}"));
    if fast_path == "off" {
        let cluster = Cluster::start(&plan).unwrap();
        flannel_tests::cluster::check_reached(&flannel_tests::cluster::pod_pairs(&cluster.nodes())).unwrap();
        cluster
    } else {
        start_plan(&plan)
    }
}

/// The pods, in both orders.
fn both_ways(cluster: &Cluster) -> [(&Endpoint, &Endpoint); 2] {
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    [(one, other), (other, one)]
}

#[rstest]
fn pods_that_segment_and_sum_themselves(
    #[values(UDP, VXLAN, HOST_GW)] backend: &str,
    #[values("auto", "off")] fast_path: &str,
) {
    let cluster = start(backend, fast_path);
    for (from, to) in both_ways(&cluster) {
        from.namespace.run("ethtool", "-K eth0 tso off gso off gro off tx off rx off").unwrap();
        transfer(from, to, FILE).unwrap();
        transfer(to, from, FILE).unwrap();
    }
    assert_eq!(shortened(&cluster.members[0].daemon).0 > 100, fast_path == "auto");
}

#[rstest]
fn datagrams_cut_by_the_kernel(
    #[values(UDP, VXLAN, HOST_GW)] backend: &str,
    #[values("auto", "off")] fast_path: &str,
) {
    let cluster = start(backend, fast_path);
    for (from, to) in both_ways(&cluster) {
        let before = Received::by(&to.namespace, "eth0").unwrap();
        let datagrams = Datagrams { count: 100, payload: 40_000, segment: Some(1300) };
        datagrams.send(from, to).unwrap();
        let mean = Received::by(&to.namespace, "eth0").unwrap().mean_since(&before);
        println!("{backend} {fast_path} mean {mean}");
        datagrams.send(from, to).unwrap();
    }
    println!("{:?}", shortened(&cluster.members[0].daemon));
}

#[rstest]
fn datagrams_of_64_kilobytes(
    #[values(UDP, VXLAN, HOST_GW)] backend: &str,
    #[values("auto", "off")] fast_path: &str,
) {
    let cluster = start(backend, fast_path);
    for (from, to) in both_ways(&cluster) {
        Datagrams { count: 50, payload: 65_507, segment: None }.send(from, to).unwrap();
    }
    println!("{:?}", shortened(&cluster.members[0].daemon));
}

/// A tunnel of the pods' own, inside of which a file is sent.
#[rstest]
fn tunnel_in_the_tunnel(
    #[values(UDP, VXLAN, HOST_GW)] backend: &str,
    #[values("auto", "off")] fast_path: &str,
) {
    let cluster = start(backend, fast_path);
    let ways = both_ways(&cluster);
    let ends = [1, 2].map(|last| Ipv4Addr::new(172, 31, 0, last));
    for ((pod, peer), address) in ways.iter().zip(ends) {
        let (local, remote) = (pod.address, peer.address);
        let link = format!("link add inner type vxlan id 7 local {local} remote {remote} dstport 4789");
        for command in [&link, &format!("address add {address}/24 dev inner"), "link set inner up"] {
            pod.namespace.ip(command).unwrap();
        }
    }
    let ends = [0, 1].map(|end| Endpoint { address: ends[end], ..ways[end].0.clone() });
    for (from, to) in [(0, 1), (1, 0)] {
        let rate = transfer(&ends[from], &ends[to], FILE).unwrap().rate();
        println!("{backend} {fast_path} {:.2}", rate / 1e9);
    }
    println!("{:?}", shortened(&cluster.members[0].daemon));
}

#[rstest]
fn super_packets_beyond_64_kilobytes(
    #[values(UDP, VXLAN, HOST_GW)] backend: &str,
    #[values("auto", "off")] fast_path: &str,
) {
    let cluster = start(backend, fast_path);
    for member in &cluster.members {
        let host = &member.node.host.namespace;
        for device in ["eth0", "cni0", "pod1", "flannel.1", "flannel0", "flannel0-in", "flannel0-out"] {
            let _ = allow_big(host, device);
        }
        allow_big(cluster.network.lan(), &member.node.host.name).unwrap();
        allow_big(cluster.network.lan(), "lan").unwrap();
        allow_big(&member.node.pods[0].endpoint.namespace, "eth0").unwrap();
    }
    for (from, to) in both_ways(&cluster) {
        let before = Received::by(&to.namespace, "eth0").unwrap();
        let rate = transfer(from, to, FILE).unwrap().rate();
        let mean = Received::by(&to.namespace, "eth0").unwrap().mean_since(&before);
        println!("{backend} {fast_path} {:.2} mean {mean}", rate / 1e9);
    }
    println!("{:?}", shortened(&cluster.members[0].daemon));
}

fn allow_big(namespace: &flannel_tests::namespace::Namespace, device: &str) -> anyhow::Result<String> {
    namespace.run("python3", &format!("/tmp/wt/packets-scratch/big.py {device} 185000"))
}
