//! Packets of pods that skip bridge, routing and netfilter; and all that must be as if they did not.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::{Stream, transfer};
use rstest::rstest;

use crate::{HOST_GW, UDP, VXLAN};

#[rstest]
#[case::vxlan(VXLAN, "auto")]
#[case::udp(UDP, "auto")]
#[case::host_gw(HOST_GW, "auto")]
#[case::vxlan_xdp(VXLAN, "xdp")]
#[case::vxlan_clsact(VXLAN, "clsact")]
fn experiment(#[case] backend: &str, #[case] hook: &str) {
    let cluster = Cluster::start(&Plan::new(backend).with_flag(&format!("--datapath-hook={hook}"))).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    sleep(Duration::from_millis(500));
    let stream = Stream::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), 20_000).unwrap();
    sleep(Duration::from_secs(1));
    println!("{:?}", stream.stop().unwrap());
    let sent = transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), 2_000_000_000).unwrap();
    println!("{:.2} Gbit/s", sent.rate() / 1e9);
    for member in &cluster.members {
        println!("{}", member.daemon.ctl("counters").unwrap());
        println!("{}", std::fs::read_to_string(member.daemon.log()).unwrap());
        println!("{}", member.node.pods[0].endpoint.namespace.run("nstat", "-az TcpExtTCPDSACKOfoRecv TcpExtTCPDSACKRecv TcpRetransSegs TcpExtTCPOFOQueue TcpExtTCPSACKReorder TcpExtTCPOFOQueue").unwrap());
    }
}
