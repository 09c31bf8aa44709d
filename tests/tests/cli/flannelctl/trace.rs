//! Single packets, as programs report them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;
use rstest::rstest;
use serde_json::Value;

use super::{ask, ask_json, command};

/// Sends pings until the command has ended by itself, and returns what it printed.
fn with_pings(cluster: &Cluster, mut child: Child) -> String {
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let deadline = Instant::now() + wait::stretched(Duration::from_secs(20));
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command does not end");
        drop(Ping::default().send(from, to));
    }
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(child.wait().unwrap().success(), "{printed}");
    printed
}

#[rstest]
#[case::udp("udp", "auto", "decap")]
#[case::vxlan("vxlan", "auto", "decap")]
#[case::vxlan_xdp("vxlan", "xdp", "xdp")]
fn packets_are_told_with_peer_and_pod_though_the_daemon_is_dead(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] arrives_at: &str,
) {
    let plan = Plan::new(&format!(r#"{{"Type":"{backend}"}}"#)).with_flag(&format!("--datapath-hook={hook}"));
    let mut cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let member = &cluster.members[0];
    let peer = cluster.members[1].node.host.address.to_string();
    let trace = |words: &[&str]| {
        let words = [&["-o", "json", "trace", "--verdict", "forward"], words].concat();
        let child = command(member, &words).stdout(Stdio::piped()).spawn().unwrap();
        with_pings(&cluster, child)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    let pods = [0, 1].map(|member| cluster.pod(member).unwrap().address.to_string());
    for event in trace(&["--hook", "encap", "--count", "3", "--duration", "15"]) {
        assert_eq!((&event["hook"], &event["reason"]), (&"encap".into(), &"forwarded".into()), "{event}");
        assert_eq!(event["outer"]["destination"], peer, "{event}");
        assert_eq!(
            (&event["inner"]["source"], &event["inner"]["destination"]),
            (&pods[0].clone().into(), &pods[1].clone().into())
        );
        assert_eq!((&event["peer"], &event["pod"]), (&peer.clone().into(), &pods[0].clone().into()));
        assert_eq!(event["inner"]["protocol"], "icmp");
    }
    let arriving = trace(&["--hook", arrives_at, "--host", &pods[1], "--count", "2", "--duration", "15"]);
    assert_eq!(arriving.len(), 2);
    assert!(
        arriving.iter().all(|event| event["peer"] == peer && event["inner"]["source"] == pods[1]),
        "{arriving:?}"
    );
    assert!(trace(&["--port", "9", "--duration", "2"]).is_empty());
}

#[test]
fn dropped_packets_are_told_and_only_one_can_ask() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"udp"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let member = &cluster.members[0];
    let words = ["-o", "json", "trace", "--verdict", "drop", "--count", "1", "--duration", "15"];
    let mut child = command(member, &words).stdout(Stdio::piped()).spawn().unwrap();
    let asks = || ask_json(member, &["maps", "dump", "TRACE_FILTER"]).1["TRACE_FILTER"][0]["until"] != 0;
    wait::until_true("the first one to ask", Duration::from_secs(10), asks).unwrap();
    let (from, mut nobody) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap().clone());
    nobody.address = [10, 5, 253, 9].into();
    // As long as nothing is dropped the first one waits.
    let (code, _, stderr) = ask(member, &["trace", "--count", "1", "--duration", "1"]);
    assert!(code == Some(1) && stderr.contains("another trace or capture"), "{code:?}: {stderr}");
    while child.try_wait().unwrap().is_none() {
        drop(Ping::default().send(from, &nobody));
    }
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["reason"], &event["verdict"]), (&"no_peer".into(), &"drop".into()), "{event}");
    assert_eq!(event["inner"]["destination"], "10.5.253.9");
}

#[rstest]
#[case::udp("udp", "auto")]
#[case::vxlan("vxlan", "auto")]
#[case::vxlan_xdp("vxlan", "xdp")]
fn a_capture_has_outer_and_inner_headers_of_both_ways(#[case] backend: &str, #[case] hook: &str) {
    let plan = Plan::new(&format!(r#"{{"Type":"{backend}"}}"#)).with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let member = &cluster.members[0];
    let peer = cluster.members[1].node.host.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peer.pcapng");
    let path = file.to_str().unwrap();
    let words = ["capture", "--peer", &peer, "-w", path, "--count", "8", "--duration", "15"];
    with_pings(&cluster, command(member, &words).stdout(Stdio::piped()).spawn().unwrap());

    let own = member.node.host.address.to_string();
    let mut reader = pcap_file::pcapng::PcapNgReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let (mut sent, mut received) = (0, 0);
    while let Some(block) = reader.next_block() {
        let Some(packet) = block.unwrap().into_owned().into_enhanced_packet() else { continue };
        let headers = etherparse::SlicedPacket::from_ethernet(&packet.data).unwrap();
        let ip = headers.net.as_ref().and_then(|net| net.ipv4_ref()).unwrap().header().to_header();
        let ends = [ip.source, ip.destination].map(|address| std::net::Ipv4Addr::from(address).to_string());
        if ends == [own.clone(), peer.clone()] {
            sent += 1;
        } else {
            assert_eq!(ends, [peer.clone(), own.clone()]);
            received += 1;
        }
    }
    assert_eq!(sent + received, 8);
    assert!(sent >= 3 && received >= 3, "{sent} sent, {received} received");
}
