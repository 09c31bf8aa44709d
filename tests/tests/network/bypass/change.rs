//! Pods and daemons come and go.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::ensure;
use flannel_tests::daemon::Daemon;
use flannel_tests::namespace::Namespace;
use flannel_tests::network::BRIDGE;
use flannel_tests::traffic::{Endpoint, Ping, transfer};
use flannel_tests::wait;
use rstest::rstest;
use serde_json::Value;

use super::flow::{Bytes, Datagrams, Flow};
use super::{FILE, bypassed, start};
use crate::{HOST_GW, UDP, VXLAN};

/// Waits until both programs are at a pod's port.
fn wait_served(daemon: &Daemon, port: &str) {
    let is_served = || {
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        let attached = |program| log.contains(&format!(r#"attached program="{program}" interface="{port}""#));
        attached("pod_in") && attached("pod_out")
    };
    wait::until_true("the pod to be served", Duration::from_secs(5), is_served).unwrap();
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn a_pod_made_again_behind_another_port_gets_the_flow(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    let member = &cluster.members[1];
    let (host, pod) = (&member.node.host.namespace, &member.node.pods[0]);
    let mut flow = Datagrams::start(cluster.pod(0).unwrap(), &pod.endpoint).unwrap();
    flow.wait_for(300).unwrap();

    // With the same Ethernet address: kernels believe no other one within a second.
    let links = pod.endpoint.namespace.ip("-json link show eth0").unwrap();
    let links: Value = serde_json::from_str(&links).unwrap();
    let mac = links[0]["address"].as_str().unwrap();
    host.ip(&format!("link del {}", pod.port)).unwrap();
    let again = Namespace::add(&format!("{}-again", member.node.host.label())).unwrap();
    let (mtu, prefix) = (member.node.file.mtu, member.node.file.subnet.prefix());
    again
        .ip(&format!("link add eth0 address {mac} type veth peer name other netns {}", host.name()))
        .unwrap();
    host.ip(&format!("link set other mtu {mtu} master {BRIDGE} up")).unwrap();
    again.ip(&format!("address add {}/{prefix} dev eth0", pod.endpoint.address)).unwrap();
    again.ip(&format!("link set eth0 mtu {mtu} up")).unwrap();
    again.ip(&format!("route add default via {}", member.node.file.bridge)).unwrap();
    let target = flow.target().unwrap();
    let far = again.within(|| Ok(UdpSocket::bind(target)?)).unwrap();
    let end = Endpoint { name: "again".to_owned(), namespace: again, address: pod.endpoint.address };
    // It makes itself known to its neighbours, once the kernel has noticed that the cable is plugged in.
    let hello = || Ping::default().send(&end, &member.node.gateway())?.check();
    wait::until("the pod to reach its gateway", Duration::from_secs(5), hello).unwrap();
    flow.receive(far).unwrap();
    let arrived = flow.arrivals(Duration::from_millis(100), Duration::from_millis(200));
    assert!(arrived > 20, "{arrived} datagrams in 200 ms");

    wait_served(&member.daemon, "other");
    let before = bypassed(&member.daemon).1;
    flow.wait_for(300).unwrap();
    let after = bypassed(&member.daemon).1;
    assert!(after > before + 200, "it bypasses again: {before}, {after}");
    let pins = ["links", "filters"].map(|kind| member.daemon.pin_dir().join(kind));
    let is_clean = || {
        let entries = pins.iter().filter_map(|pins| std::fs::read_dir(pins).ok()).flatten();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("pod_")).count() == 2
    };
    wait::until_true("the pins of the pod that is gone to be removed", Duration::from_secs(5), is_clean)
        .unwrap();
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn flows_go_on_while_the_daemon_is_away(#[case] backend: &str) {
    let mut cluster = start(backend, &[]);
    let (from, to) = (cluster.pod(0).unwrap().clone(), cluster.pod(1).unwrap().clone());
    let running = Bytes::start(&from, &to).unwrap();
    running.wait_for(1_000_000).unwrap();
    for member in &mut cluster.members {
        member.daemon.kill().unwrap();
    }
    let before = bypassed(&cluster.members[0].daemon).0;
    running.wait_for(500_000).unwrap();
    let after = bypassed(&cluster.members[0].daemon).0;
    assert!(after > before + 200, "a connection that bypasses continues to: {before}, {after}");
    drop(running);

    let before = bypassed(&cluster.members[0].daemon).0;
    transfer(&from, &to, FILE).unwrap();
    let after = bypassed(&cluster.members[0].daemon).0;
    assert!(after < before + 100, "nobody has approved of the new one: {before}, {after}");

    for member in &mut cluster.members {
        member.daemon.restart().unwrap();
        member.daemon.wait_ready().unwrap();
    }
    // Connections are approved once the ports of pods are served again.
    wait::until("the new daemon to approve of a connection", Duration::from_secs(10), || {
        let before = bypassed(&cluster.members[0].daemon).0;
        transfer(&from, &to, FILE)?;
        let after = bypassed(&cluster.members[0].daemon).0;
        ensure!(after > before + 500, "{before}, {after}");
        Ok(())
    })
    .unwrap();
}
