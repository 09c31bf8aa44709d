//! Stock flannel's manifest with another image: the container may not use eBPF, and sees next to nothing of the host.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flannel_tests::cluster::{all_pairs, check_reached};
use flannel_tests::container::Manifest;
use flannel_tests::network::Host;
use rstest::rstest;

use crate::{Lab, SOON, net_conf, wait_log};

const METRICS: &str = "127.0.0.1:9501";
const FLAGS: [&str; 4] = [
    "--ip-masq",
    "--healthz-port=8081",
    "--metrics-listen=127.0.0.1:9501",
    // As no volume is mounted there.
    "--state-file=/var/lib/flannel-ebpf/state.json",
];

fn metrics(host: &Host) -> String {
    host.namespace
        .within(|| {
            let mut stream = TcpStream::connect(METRICS)?;
            write!(stream, "GET /metrics HTTP/1.0\r\nHost: {METRICS}\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
        .unwrap()
}

#[rstest]
#[case::vxlan_0_13("vxlan", Manifest::Of0_13)]
#[case::vxlan_0_28("vxlan", Manifest::Of0_28)]
#[case::host_gw_0_28("host-gw", Manifest::Of0_28)]
fn a_container_of_stocks_manifest_has_the_kernel_forward(#[case] backend: &str, #[case] manifest: Manifest) {
    let lab = Lab::new();
    let mut members = [1, 2].map(|number| {
        let host = lab.host(number);
        lab.api.add_node(&host.name, Some(&format!("10.244.{number}.0/24"))).unwrap();
        let mut daemon = lab.api.prepare_daemon(&host, &net_conf(backend), &FLAGS).unwrap();
        // One of them may use eBPF.
        if number == 1 {
            daemon.contained_as(manifest);
        }
        daemon.restart().unwrap();
        let file = daemon.wait_ready().unwrap();
        let node = flannel_tests::network::Node::new(host, file, 1).unwrap();
        (daemon, node)
    });
    let pairs = all_pairs(&[&members[0].1, &members[1].1]);
    check_reached(&pairs).unwrap();
    let (daemon, node) = &members[0];
    for line in [
        "eBPF cannot be used: Linux ",
        "capabilities: {add: [NET_ADMIN, NET_RAW, BPF, PERFMON]}",
        "- {name: bpf, mountPath: /sys/fs/bpf}",
        "- {name: bpf, hostPath: {path: /sys/fs/bpf, type: Directory}}",
    ] {
        wait_log(daemon, line);
    }
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    assert_eq!(log.matches("eBPF cannot be used").count(), 1, "{log}");
    assert!(metrics(&node.host).contains("flannel_datapath_info{mode=\"kernel\"} 1\n"));
    assert!(metrics(&members[1].1.host).contains("flannel_datapath_info{mode=\"ebpf\","));
    // The container is started again, and has nothing left but what is the host's.
    members[0].0.terminate().unwrap();
    check_reached(&pairs).unwrap();
    members[0].0.restart().unwrap();
    members[0].0.wait_ready().unwrap();
    lab.add_peer(50);
    crate::wait_route(&members[0].1.host, "10.244.50.0/24", backend == "vxlan");
    check_reached(&pairs).unwrap();
}

#[test]
fn udp_is_refused_in_a_container_of_stocks_manifest() {
    let lab = Lab::new();
    let host = lab.host(1);
    lab.api.add_node(&host.name, Some("10.244.1.0/24")).unwrap();
    let mut daemon = lab.api.prepare_daemon(&host, &net_conf("udp"), &FLAGS).unwrap();
    daemon.contained_as(Manifest::Of0_28);
    daemon.restart().unwrap();
    assert_eq!(daemon.wait_end(SOON).unwrap().code(), Some(1));
    wait_log(&daemon, "the backend udp forwards by eBPF programs alone, which cannot be used: Linux ");
    wait_log(&daemon, "capabilities: {add: [NET_ADMIN, NET_RAW, BPF, PERFMON]}");
}
