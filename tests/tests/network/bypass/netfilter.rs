//! Rules and connection tracking are as good as without the bypass.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::network::{ETCD_ADDRESS, Host};
use flannel_tests::traffic::{Conversation, Endpoint, Ping, transfer};
use flannel_tests::wait;
use rstest::rstest;

use super::flow::{Bytes, Datagrams, Flow};
use super::{FILE, bypassed, start, start_plan};
use crate::{HOST_GW, UDP, VXLAN, plan};

const GIGABYTE: u64 = 1_000_000_000;
/// So late a change of rules may take effect on running flows.
const EFFECT: Duration = Duration::from_millis(100);

pub fn nft(host: &Host, command: &str) -> String {
    host.namespace.run("nft", command).unwrap()
}

/// Who writes the rules.
#[derive(Clone, Copy)]
enum Engine {
    Nftables,
    Iptables(&'static str),
}

impl Engine {
    /// Drops what the host forwards to `target`.
    fn drop_to(self, host: &Host, target: &str) {
        match self {
            Self::Nftables => {
                nft(host, "add table ip filter_test");
                nft(host, "add chain ip filter_test forward { type filter hook forward priority -1 ; }");
                nft(host, &format!("add rule ip filter_test forward ip daddr {target} drop"));
            }
            Self::Iptables(program) => {
                host.namespace.run(program, &format!("-w -I FORWARD 1 -d {target} -j DROP")).unwrap();
            }
        }
    }

    fn let_through(self, host: &Host, target: &str) {
        match self {
            Self::Nftables => drop(nft(host, "delete table ip filter_test")),
            Self::Iptables(program) => {
                host.namespace.run(program, &format!("-w -D FORWARD -d {target} -j DROP")).unwrap();
            }
        }
    }
}

const LEGACY: Engine = Engine::Iptables("iptables-legacy");
const OVER_NFT: Engine = Engine::Iptables("iptables-nft");

#[rstest]
#[case::sender_nftables(VXLAN, 0, Engine::Nftables)]
#[case::sender_legacy(VXLAN, 0, LEGACY)]
#[case::receiver_nftables(VXLAN, 1, Engine::Nftables)]
#[case::receiver_over_nft(VXLAN, 1, OVER_NFT)]
#[case::udp_sender(UDP, 0, OVER_NFT)]
#[case::udp_receiver(UDP, 1, LEGACY)]
#[case::host_gw_sender(HOST_GW, 0, Engine::Nftables)]
#[case::host_gw_receiver(HOST_GW, 1, LEGACY)]
fn a_rule_takes_effect_on_running_flows(#[case] backend: &str, #[case] at: usize, #[case] engine: Engine) {
    let cluster = start(backend, &[]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let (datagrams, bytes) = (Datagrams::start(from, to).unwrap(), Bytes::start(from, to).unwrap());
    datagrams.wait_for(500).unwrap();
    bytes.wait_for(500_000).unwrap();
    let before = bypassed(&cluster.members[0].daemon).0;
    assert!(before > 600, "{before}");

    let host = &cluster.members[at].node.host;
    let target = to.address.to_string();
    engine.drop_to(host, &target);
    let ruled = Instant::now();
    let effect = wait::stretched(EFFECT);
    sleep(effect + Duration::from_millis(200));
    let late = datagrams.latest().saturating_duration_since(ruled);
    assert!(late < effect, "a datagram came through that was sent {late:?} after the rule");
    assert_eq!(bytes.arrivals(Duration::ZERO, Duration::from_millis(200)), 0, "bytes came through");

    engine.let_through(host, &target);
    datagrams.wait_for(200).unwrap();
    bytes.wait_for(200_000).unwrap();
    let after = bypassed(&cluster.members[0].daemon).0;
    assert!(after > before + 200, "{after}, before the rule {before}");
}

/// The rule by which kube-proxy drops what connection tracking does not expect.
fn drop_invalid(cluster: &Cluster) {
    for member in &cluster.members {
        let host = &member.node.host;
        nft(host, "add table ip tracking");
        nft(host, "add chain ip tracking forward { type filter hook forward priority 0 ; }");
        nft(host, "add rule ip tracking forward ct state invalid counter drop");
        nft(host, "add rule ip tracking forward ct state established counter accept");
    }
}

/// Packets the rules of [`drop_invalid`] have met: invalid, established.
fn tracked(host: &Host) -> (u64, u64) {
    let rules = nft(host, "list table ip tracking");
    let packets = |state: &str| {
        let line = rules.lines().find(|line| line.contains(state)).unwrap();
        line.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    (packets("ct state invalid"), packets("ct state established"))
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn a_tracked_gigabyte_arrives_whole(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    drop_invalid(&cluster);
    let sent = transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), GIGABYTE).unwrap();
    println!("{backend}: {:.2} Gbit/s", sent.rate() / 1e9);
    for member in &cluster.members {
        let (invalid, established) = tracked(&member.node.host);
        assert_eq!(invalid, 0, "on {}", member.node.host.name);
        let (sent, received) = bypassed(&member.daemon);
        let all = sent + received;
        assert!(all > 10 * established, "{all} bypassed the stack, {established} entered it");
    }
}

/// Connections in a zone of their own cannot be set liberal in connection tracking.
#[rstest]
#[case::with_regard("flow", false)]
#[case::without_regard("direct", true)]
fn connections_in_a_zone(#[case] mode: &str, #[case] is_bypassed: bool) {
    let cluster = start(VXLAN, &[&format!("--pod-bypass={mode}")]);
    for member in &cluster.members {
        let host = &member.node.host;
        nft(host, "add table ip zones");
        nft(host, "add chain ip zones prerouting { type filter hook prerouting priority raw ; }");
        nft(host, "add rule ip zones prerouting ip protocol tcp ct zone set 5");
    }
    drop_invalid(&cluster);
    let before = bypassed(&cluster.members[0].daemon).0;
    if mode == "flow" {
        transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
        assert_eq!(tracked(&cluster.members[0].node.host).0, 0);
    } else {
        // Without the rule about invalid packets, which this mode does not go with.
        for member in &cluster.members {
            nft(&member.node.host, "delete table ip tracking");
        }
        transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), FILE).unwrap();
    }
    let count = bypassed(&cluster.members[0].daemon).0 - before;
    assert_eq!(count > 500, is_bypassed, "{count} bypassed the stack");
    // Datagrams need no approval.
    let datagrams = Datagrams::start(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap();
    datagrams.wait_for(300).unwrap();
    assert!(bypassed(&cluster.members[0].daemon).0 > before + count + 200);
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn a_translated_flow_never_bypasses_where_it_is_translated(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let [first, second] = [0, 1].map(|member| &cluster.members[member]);
    let service = "10.96.0.10";
    nft(&first.node.host, "add table ip service");
    nft(&first.node.host, "add chain ip service prerouting { type nat hook prerouting priority dstnat ; }");
    nft(
        &first.node.host,
        &format!("add rule ip service prerouting ip daddr {service} dnat to {}", to.address),
    );
    let before = bypassed(&first.daemon);
    let mut target = to.clone();
    target.address = service.parse().unwrap();
    let ping = Ping { count: 100, interval: Duration::from_millis(5), ..Ping::default() };
    ping.send(from, &target).unwrap().check().unwrap();
    assert_eq!(bypassed(&first.daemon), before);
    // There the service is unknown: packets are what they seem.
    assert!(bypassed(&second.daemon).0 > 50);
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn the_world_outside_is_reached_by_masquerading(#[case] backend: &str) {
    let cluster = start_plan(&plan(backend).with_flag("--ip-masq=true"));
    let mut outside = cluster.members[1].node.host.endpoint();
    outside.address = ETCD_ADDRESS;
    let ping = Ping { count: 50, interval: Duration::from_millis(5), ..Ping::default() };
    ping.send(cluster.pod(0).unwrap(), &outside).unwrap().check().unwrap();
    ping.send(cluster.pod(0).unwrap(), cluster.pod(1).unwrap()).unwrap().check().unwrap();
    assert!(bypassed(&cluster.members[0].daemon).0 > 20, "pods of the network are not masqueraded");
}

/// A host that answers for its pods until a connection stands (SYNPROXY) translates sequence numbers from then on, in
/// packets that leave with the same addresses, ports and hops.
#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn a_connection_whose_sequence_numbers_are_translated_goes_on(#[case] backend: &str) {
    let cluster = start(backend, &[]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let host = &cluster.members[1].node.host;
    host.namespace.sysctl("netfilter/nf_conntrack_tcp_loose", "0").unwrap();
    let rules = [
        "add table ip proxy".to_owned(),
        "add chain ip proxy raw { type filter hook prerouting priority raw ; }".to_owned(),
        format!("add rule ip proxy raw ip daddr {} tcp flags syn notrack", to.address),
        "add chain ip proxy forward { type filter hook forward priority -1 ; }".to_owned(),
        format!(
            "add rule ip proxy forward ip daddr {} ct state invalid,untracked synproxy mss 1400 wscale 7 timestamp \
             sack-perm",
            to.address
        ),
        "add rule ip proxy forward ct state invalid drop".to_owned(),
    ];
    rules.iter().for_each(|rule| drop(nft(host, rule)));
    let conversation = Conversation::start(from, to).unwrap();
    sleep(Duration::from_secs(3));
    let heard = conversation.stop().unwrap();
    assert!(heard.numbers > 300, "{heard:?}");
    let again = retransmitted(from);
    assert!(again < 5, "{again} segments were sent again: {heard:?}");
}

/// How many segments of TCP a machine has sent again.
fn retransmitted(machine: &Endpoint) -> u64 {
    let text = machine.namespace.run("cat", "/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(numbers.split(' '));
    columns.find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
}
