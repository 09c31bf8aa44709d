//! One network of hosts with our daemon and hosts set up as by stock flannel.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use flannel_tests::cluster::{Cluster, Plan, all_pairs, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, HostOptions, Node, Offloads, Place, RpFilter, SubnetFile};
use flannel_tests::stock_udp::{self, StockUdpHost};
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::{Ping, transfer};
use flannel_tests::vxlan_host::{self, VxlanHost};
use nix::sys::socket::{setsockopt, sockopt};
use rstest::rstest;

const UDP: &str = r#"{"Type":"udp"}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// Two hosts with daemons, and a third one without.
fn cluster_and_host(backend: &str, hook: &str, place: Place, host: HostOptions) -> (Cluster, Host) {
    let plan = Plan { host, ..Plan::new(backend) }.with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    let stock = Host::new(&cluster.network, place, 3, host).unwrap();
    (cluster, stock)
}

/// A subnet that no daemon chooses by itself while there are few hosts.
fn stock_file(mtu: u32) -> SubnetFile {
    SubnetFile {
        network: "10.5.0.0/16".parse().unwrap(),
        subnet: "10.5.250.0/24".parse().unwrap(),
        bridge: Ipv4Addr::new(10, 5, 250, 1),
        mtu,
        ip_masq: false,
    }
}

/// Everybody reaches everybody, with packets as large as may be, and files arrive whole.
fn check_network(nodes: &[&Node], file_size: u64) {
    check_reached(&all_pairs(nodes)).unwrap();
    for (from, to) in pod_pairs(nodes) {
        let mtu = nodes[0].file.mtu;
        let large = Ping { count: 2, size: mtu, dont_fragment: true, ..Ping::default() };
        large.send(&from, &to).unwrap().check().unwrap();
    }
    let (ours, stock) = (&nodes[0].pods[0].endpoint, &nodes[2].pods[0].endpoint);
    for (from, to) in [(ours, stock), (stock, ours)] {
        let sent = transfer(from, to, file_size).unwrap();
        println!("{} -> {}: {:.2} Gbit/s", from.name, to.name, sent.rate() / 1e9);
    }
}

#[rstest]
#[case::auto("auto", Place::Near, RpFilter::Off, Offloads::All)]
#[case::clsact_across_a_router("clsact", Place::Far, RpFilter::Strict, Offloads::All)]
#[case::on_a_wire("auto", Place::Near, RpFilter::Strict, Offloads::None)]
#[case::xdp("xdp", Place::Near, RpFilter::Strict, Offloads::Receive)]
fn kernel_vxlan_host(
    #[case] hook: &str,
    #[case] place: Place,
    #[case] rp_filter: RpFilter,
    #[case] offloads: Offloads,
) {
    let (cluster, host) =
        cluster_and_host(VXLAN, hook, place, HostOptions { rp_filter, offloads, ..HostOptions::default() });
    let stock = VxlanHost::join(&host, &cluster.etcd, PREFIX, stock_file(vxlan_host::MTU), 2).unwrap();
    stock.learn(&cluster.etcd, PREFIX).unwrap();
    let nodes = [cluster.nodes(), vec![&stock.node]].concat();
    check_network(&nodes, 200_000_000);
    let pong = Ping::default().send(cluster.pod(0).unwrap(), &stock.node.pods[0].endpoint).unwrap();
    assert_eq!(pong.ttl, Some(62), "the kernel's device and ours count the same hops");
}

#[rstest]
#[case::auto("auto", Place::Near, Offloads::All)]
#[case::clsact_across_a_router("clsact", Place::Far, Offloads::All)]
#[case::on_a_wire("auto", Place::Near, Offloads::Receive)]
#[case::xdp("xdp", Place::Near, Offloads::Receive)]
fn stock_udp_host(#[case] hook: &str, #[case] place: Place, #[case] offloads: Offloads) {
    let options = HostOptions { rp_filter: RpFilter::Strict, offloads, queues: None };
    let (cluster, host) = cluster_and_host(UDP, hook, place, options);
    let stock = StockUdpHost::join(&host, &cluster.etcd, PREFIX, stock_file(stock_udp::MTU), 2).unwrap();
    let nodes = [cluster.nodes(), vec![&stock.node]].concat();
    check_network(&nodes, 50_000_000);
}

/// A mark that a router sets on the way to a stock host would be lost with the outer header.
#[test]
fn packets_to_a_stock_udp_host_are_not_to_be_marked() {
    const ECT_0: i32 = 0b10;
    let (cluster, host) = cluster_and_host(UDP, "auto", Place::Near, HostOptions::default());
    let stock = StockUdpHost::join(&host, &cluster.etcd, PREFIX, stock_file(stock_udp::MTU), 1).unwrap();
    let nodes = [cluster.nodes(), vec![&stock.node]].concat();
    check_reached(&pod_pairs(&nodes)).unwrap();
    let from = cluster.pod(0).unwrap();
    let source = cluster.members[0].node.host.address;
    let socket = from.namespace.within(|| Ok(UdpSocket::bind((from.address, 0))?)).unwrap();
    setsockopt(&socket, sockopt::Ipv4Tos, &ECT_0).unwrap();
    for (to, wire, expected) in [(&nodes[1].pods[0], "h2", ECT_0), (&stock.node.pods[0], "h3", 0)] {
        let capture = Capture::start(cluster.network.lan(), wire).unwrap();
        socket.send_to(b"x", (to.endpoint.address, 9)).unwrap();
        let outer = capture.find("tunnel packet", Duration::from_secs(2), |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok()?;
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport)
            else {
                return None;
            };
            let is_ours = ip.header().source_addr() == source && udp.destination_port() == 8285;
            // The datagram itself, not an answer to an earlier one: it has one byte.
            (is_ours && udp.payload().len() == 29).then(|| i32::from(ip.header().ecn().value()))
        });
        assert_eq!(outer.unwrap(), expected, "to {}", to.endpoint.name);
    }
}
