//! Other nodes: of stock flannel, made again, annotated with junk, gone.

use std::net::Ipv4Addr;

use flannel_tests::cluster::{all_pairs, check_reached};
use flannel_tests::kubernetes::{annotation, annotations_of, lease_of, stock_annotations};
use flannel_tests::network::{Node, SubnetFile};
use flannel_tests::vxlan_host::{self, VxlanHost};
use rstest::rstest;
use serde_json::json;

use crate::{Lab, net_conf, wait_log, wait_route};

/// Two daemons, and a host that is set up, and whose node is annotated, as by stock flannel.
#[test]
fn everybody_reaches_a_node_of_stock_flannel() {
    let lab = Lab::new();
    let members = [lab.member(1), lab.member(2)].map(|(daemon, host)| {
        let file = SubnetFile::read(&daemon.subnet_file()).unwrap();
        let node = Node::new(host, file, 1).unwrap();
        daemon.wait_attached(&node).unwrap();
        (daemon, node)
    });
    let host = lab.host(3);
    lab.api.add_node("h3", Some("10.244.3.0/24")).unwrap();
    let file = SubnetFile {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet: "10.244.3.0/24".parse().unwrap(),
        bridge: Ipv4Addr::new(10, 244, 3, 1),
        mtu: vxlan_host::MTU,
        ip_masq: false,
    };
    let stock = VxlanHost::new(&host, file, 2).unwrap();
    let annotations = stock_annotations(stock.lease()).unwrap();
    let annotations: Vec<(&str, Option<&str>)> =
        annotations.iter().map(|(name, value)| (*name, value.as_deref())).collect();
    lab.api.annotate("h3", &annotations).unwrap();
    for name in ["h1", "h2"] {
        stock.reach(&lease_of(&lab.api.node(name).unwrap()).unwrap()).unwrap();
    }
    check_reached(&all_pairs(&[&members[0].1, &members[1].1, &stock.node])).unwrap();
}

/// What a daemon says is what stock flannel says.
#[rstest]
#[case::vxlan("vxlan")]
#[case::host_gw("host-gw")]
#[case::udp("udp")]
fn a_node_says_what_stock_flannel_says(#[case] backend: &str) {
    let lab = Lab::new();
    let host = lab.host(1);
    lab.api.add_node("h1", Some("10.244.1.0/24")).unwrap();
    let mut daemon = lab.api.start_daemon(&host, &net_conf(backend), &["--ip-masq"]).unwrap();
    let file = daemon.wait_ready().unwrap();
    assert_eq!(file.subnet, "10.244.1.0/24".parse().unwrap());
    let node = lab.api.node("h1").unwrap();
    let mut expected = vec![
        ("backend-data".to_owned(), "null".to_owned()),
        ("backend-type".to_owned(), if backend == "udp" { "" } else { backend }.to_owned()),
        ("kube-subnet-manager".to_owned(), "true".to_owned()),
        ("public-ip".to_owned(), "192.168.77.11".to_owned()),
    ];
    if backend == "vxlan" {
        let shown = host.namespace.ip("-brief link show flannel.1").unwrap();
        let mac = shown.split_whitespace().nth(2).unwrap();
        expected[0].1 = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
    }
    assert_eq!(annotations_of(&node), expected);
    flannel_tests::wait::until_true("the condition to be set", crate::SOON, || {
        let node = lab.api.node("h1").unwrap();
        let condition = &node["status"]["conditions"][0];
        let times = [&condition["lastHeartbeatTime"], &condition["lastTransitionTime"]];
        *condition
            == json!({
                "type": "NetworkUnavailable",
                "status": "False",
                "lastHeartbeatTime": times[0],
                "lastTransitionTime": times[1],
                "reason": "FlannelIsUp",
                "message": "Flannel is running on this node",
            })
    })
    .unwrap();
    // A daemon that starts again finds everything as it should be, and writes nothing.
    let before = lab.api.node("h1").unwrap()["metadata"]["resourceVersion"].clone();
    daemon.terminate().unwrap();
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(lab.api.node("h1").unwrap()["metadata"]["resourceVersion"], before);
}

#[test]
fn peers_follow_their_nodes() {
    let lab = Lab::new();
    for number in 50..54 {
        lab.add_peer(number);
    }
    let (mut daemon, host) = lab.member(1);
    for number in 50..54 {
        wait_route(&host, &format!("10.244.{number}.0/24"), true);
    }
    // Made again with another subnet, under the same name.
    lab.api.delete_node("peer-50").unwrap();
    lab.api.add_node("peer-50", Some("10.244.60.0/24")).unwrap();
    lab.announce("peer-50", Ipv4Addr::new(192, 168, 77, 50));
    wait_route(&host, "10.244.60.0/24", true);
    wait_route(&host, "10.244.50.0/24", false);
    // Served by flannel no more.
    lab.api.annotate("peer-51", &[("kube-subnet-manager", None)]).unwrap();
    wait_route(&host, "10.244.51.0/24", false);
    // Assigned late.
    lab.api.add_node("late", None).unwrap();
    lab.announce("late", Ipv4Addr::new(192, 168, 77, 61));
    lab.api.assign("late", "10.244.61.0/24").unwrap();
    wait_route(&host, "10.244.61.0/24", true);
    // Gone, or made again, while there is no daemon.
    daemon.kill().unwrap();
    lab.api.delete_node("peer-52").unwrap();
    lab.api.delete_node("peer-53").unwrap();
    lab.api.add_node("peer-53", Some("10.244.63.0/24")).unwrap();
    lab.announce("peer-53", Ipv4Addr::new(192, 168, 77, 53));
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    wait_route(&host, "10.244.63.0/24", true);
    wait_route(&host, "10.244.52.0/24", false);
    wait_route(&host, "10.244.53.0/24", false);
}

#[test]
fn hostile_nodes_are_refused_and_others_served() {
    let lab = Lab::new();
    let (daemon, host) = lab.member(1);
    // The subnet of another node, an address of this host, a subnet around the API server, and junk.
    lab.add_peer(50);
    wait_route(&host, "10.244.50.0/24", true);
    lab.api.add_node("thief", Some("10.244.50.0/24")).unwrap();
    lab.announce("thief", Ipv4Addr::new(192, 168, 77, 66));
    wait_log(&daemon, "its podCIDR 10.244.50.0/24 is that of the node peer-50, too");
    lab.api.add_node("twin", Some("10.244.51.0/24")).unwrap();
    lab.announce("twin", Ipv4Addr::new(192, 168, 77, 11));
    wait_log(&daemon, "the nodes h1 and twin announce one public address, 192.168.77.11");
    lab.api.add_node("cover", Some("192.168.77.0/24")).unwrap();
    lab.announce("cover", Ipv4Addr::new(192, 168, 77, 67));
    wait_log(&daemon, "192.168.77.0/24 is outside the network 10.244.0.0/16");
    lab.api.add_node("junk", Some("10.244.52.0/24")).unwrap();
    lab.api
        .annotate("junk", &[("kube-subnet-manager", Some("true")), ("public-ip", Some("nowhere"))])
        .unwrap();
    wait_log(&daemon, "annotation flannel.alpha.coreos.com/public-ip is no IPv4 address: nowhere");
    lab.add_peer(53);
    wait_route(&host, "10.244.53.0/24", true);
    let routes = host.namespace.ip("route").unwrap();
    assert!(routes.contains("10.244.50.0/24"), "{routes}");
    assert!(!routes.contains("10.244.51.0/24") && !routes.contains("10.244.52.0/24"), "{routes}");
    assert_eq!(annotation(&lab.api.node("h1").unwrap(), "public-ip"), Some("192.168.77.11"));
}
