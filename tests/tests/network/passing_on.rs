//! Super-packets out of the tunnel that the host sends on, to the world outside: a card that segments TCP and knows no
//! tunnels gets them whole.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::ETCD_ADDRESS;
use flannel_tests::traffic::Received;
use rstest::rstest;

use crate::{VXLAN, plan};

const FILE: usize = 20_000_000;
/// The port of the service at the host.
const NODE_PORT: u16 = 30_080;

/// A client outside downloads from a pod by another host's address, which translates it, as kube-proxy has it.
#[rstest]
#[case::no_bypass("off")]
#[case::bypass("flow")]
fn a_card_without_tunnels_gets_super_packets(#[case] bypass: &str) {
    let cluster =
        Cluster::start(&plan(VXLAN).with_flag("--ip-masq=true").with_flag(&format!("--pod-bypass={bypass}")))
            .unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (host, pod) = (&cluster.members[0].node.host, cluster.pod(1).unwrap());
    let listener = pod.namespace.within(|| Ok(TcpListener::bind((pod.address, 0))?)).unwrap();
    let target = listener.local_addr().unwrap();
    host.namespace
        .run(
            "iptables",
            &format!("-w -t nat -A PREROUTING -p tcp --dport {NODE_PORT} -j DNAT --to-destination {target}"),
        )
        .unwrap();
    for off in ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"] {
        host.namespace.run("ethtool", &format!("-K eth0 {off} off")).unwrap();
    }

    let outside = cluster.network.lan();
    let before = Received::by(outside, "lan").unwrap();
    let service = SocketAddr::from(SocketAddrV4::new(host.address, NODE_PORT));
    let mut client = outside.within(|| Ok(TcpStream::connect(service)?)).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_ne!(from.ip(), ETCD_ADDRESS, "the host puts its own address in the client's place");
    let sender = thread::spawn(move || server.write_all(&vec![7; FILE]));
    let mut file = Vec::new();
    client.read_to_end(&mut file).unwrap();
    sender.join().unwrap().unwrap();
    assert!(file.len() == FILE && file.iter().all(|byte| *byte == 7), "{} bytes", file.len());
    let mean = Received::by(outside, "lan").unwrap().mean_since(&before);
    assert!(mean > 10_000, "mean length {mean}");
}
