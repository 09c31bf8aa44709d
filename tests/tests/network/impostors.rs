//! Nobody delivers a packet in another's name: no pod, by tunnel packets that it makes or by plain ones, and no stranger
//! on the link, who does without the tunnel.

use std::env;
use std::net::{Ipv4Addr, UdpSocket};

use etherparse::{SlicedPacket, TransportSlice};
use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::network::{HostOptions, Place, RpFilter};
use flannel_tests::traffic::Endpoint;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::inject::{Injector, Inner};
use rstest::rstest;

use crate::guard::stranger;
use crate::offload::SEGMENTED;
use crate::{DIRECT, HOST_GW, UDP, VXLAN, format_to, plan};

/// How many packets each attack has, where not told.
const PACKETS: usize = 2000;
/// The variable that tells, for a longer run.
const VARIABLE: &str = "FLANNEL_ATTACK_PACKETS";
const PORT: u16 = 4712;

fn packets() -> usize {
    env::var(VARIABLE).map_or(PACKETS, |number| number.parse().unwrap())
}

/// How many packets of an attack have passed.
fn delivered(capture: &Capture) -> usize {
    let mut count = 0;
    let look = |frame: &[u8]| {
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return };
        let Some(TransportSlice::Udp(udp)) = packet.transport else { return };
        count += usize::from(udp.destination_port() == PORT);
    };
    capture.each(look).unwrap();
    count
}

/// Sends plain packets in the name of `source`.
fn send_plain(from: &Endpoint, source: Ipv4Addr, destination: Ipv4Addr, count: usize) {
    if source != from.address {
        from.namespace.ip(&format!("address add {source}/32 dev lo")).unwrap();
    }
    let socket = from.namespace.within(|| Ok(UdpSocket::bind((source, 0))?)).unwrap();
    for _ in 0..count {
        // A full queue is as good as any other loss.
        drop(socket.send_to(b"in another's name", (destination, PORT)));
    }
    if source != from.address {
        from.namespace.ip(&format!("address delete {source}/32 dev lo")).unwrap();
    }
}

/// A flood may fill a queue, which loses some before a program sees them.
fn check_counted(counted: u64, sent: u64) {
    assert!(counted <= sent && counted >= sent / 2, "{counted} of {sent} were counted");
}

/// Who has packets of pods masqueraded, if anybody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Masquerade {
    Flanneld,
    /// As Docker does, and with a rule that accepts before flanneld's.
    SomebodyElse,
    Nobody,
}

/// Two hosts with two pods each.
fn two_pods_each(backend: &str, masquerade: Masquerade, flags: &[&str]) -> Cluster {
    let plan = Plan { pods: 2, ..plan(backend) };
    let plan = plan.with_flag(&format!("--ip-masq={}", masquerade == Masquerade::Flanneld));
    let cluster = Cluster::start(&flags.iter().fold(plan, |plan, flag| plan.with_flag(flag))).unwrap();
    if masquerade == Masquerade::SomebodyElse {
        let host = &cluster.members[0].node.host.namespace;
        host.run("iptables", "-w -I FORWARD -s 10.5.0.0/16 -j ACCEPT").unwrap();
        host.run("iptables", "-w -t nat -I POSTROUTING -s 10.5.0.0/16 ! -d 10.5.0.0/16 -j MASQUERADE")
            .unwrap();
    }
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster
}

/// A pod makes tunnel packets itself, for a pod of another host and in its neighbour's name.
#[rstest]
fn a_pod_makes_no_packets_of_the_tunnel(
    #[values(UDP, VXLAN)] backend: &str,
    #[values(Masquerade::Flanneld, Masquerade::SomebodyElse, Masquerade::Nobody)] masquerade: Masquerade,
    #[values(true, false)] has_program: bool,
) {
    let flags: &[&str] = if has_program { &["--pod-bypass=flow"] } else { &["--pod-bypass=off"] };
    let cluster = two_pods_each(backend, masquerade, flags);
    let [sender, receiver] = [0, 1].map(|member| &cluster.members[member]);
    let [attacker, victim] = [0, 1].map(|pod| &sender.node.pods[pod].endpoint);
    let target = cluster.pod(1).unwrap();
    let seen = Capture::start(&target.namespace, "eth0").unwrap();
    let injector = Injector::new(attacker, &receiver.node.host.endpoint(), format_to(&cluster, 1)).unwrap();
    let inner = Inner { source: victim.address, destination: target.address, port: PORT, ecn: 0 };
    injector.send(&inner, 0, packets()).unwrap();
    assert_eq!(delivered(&seen), 0, "packets in the neighbour's name");
    let counted = sender.daemon.count("pod_out", "tunnel_from_pod").unwrap();
    check_counted(counted, if has_program { packets() as u64 } else { 0 });
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

/// A process of the host can do what no pod can, unless the rule stands that the documentation has.
#[rstest]
#[case::udp(UDP, "8285")]
#[case::vxlan(VXLAN, "8472")]
fn the_documented_rule_has_processes_of_the_host_make_no_packets_of_the_tunnel(
    #[case] backend: &str,
    #[case] port: &str,
) {
    let cluster = two_pods_each(backend, Masquerade::Flanneld, &[]);
    let [sender, receiver] = [0, 1].map(|member| &cluster.members[member]);
    let (host, victim, target) = (&sender.node.host, &sender.node.pods[1].endpoint, cluster.pod(1).unwrap());
    let attack = || {
        let seen = Capture::start(&target.namespace, "eth0").unwrap();
        let peer = receiver.node.host.endpoint();
        let inner = Inner { source: victim.address, destination: target.address, port: PORT, ecn: 0 };
        // A kernel that refuses to send may tell the socket.
        let _ = Injector::new(&host.endpoint(), &peer, format_to(&cluster, 1)).unwrap().send(&inner, 0, 100);
        delivered(&seen)
    };
    assert!(attack() > 0, "the attack itself does not work");
    let rule =
        include_str!("../../../docs/security.md").lines().filter_map(|line| line.strip_prefix("    nft "));
    for command in rule {
        host.namespace.run("nft", &command.replace("8472", port).replace('\'', "")).unwrap();
    }
    assert_eq!(attack(), 0, "packets in a pod's name");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    // What the kernel's device encapsulates belongs to no socket of the host if it is a pod's.
    SEGMENTED.send(cluster.pod(0).unwrap(), target).unwrap();
}

/// Whose name is used.
#[derive(Clone, Copy, Debug)]
enum Name {
    /// A pod of another host, behind the tunnel.
    PeersPod,
    /// A pod of the host that gets the packet.
    OwnPod,
    /// The same, for that host to send the packet on to another one's pod.
    OwnPodSentOn,
}

#[rstest]
#[case::udp(UDP, "auto", "decap")]
#[case::udp_xdp(UDP, "xdp", "decap")]
#[case::vxlan(VXLAN, "auto", "decap")]
#[case::vxlan_clsact(VXLAN, "clsact", "decap")]
#[case::direct_routing(DIRECT, "auto", "decap")]
#[case::host_gw(HOST_GW, "auto", "direct_in")]
fn a_stranger_does_not_do_without_the_tunnel(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] counted_at: &str,
    #[values(RpFilter::Off, RpFilter::Loose)] rp_filter: RpFilter,
) {
    let host = HostOptions { rp_filter, ..HostOptions::default() };
    let plan = Plan { host, ..plan(backend) }.with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan.with_flag("--pod-bypass=flow")).unwrap();
    let stranger = stranger(&cluster);
    let [other, victim] = [0, 1].map(|member| &cluster.members[member]);
    let [other_pod, victims_pod] = [0, 1].map(|member| cluster.pod(member).unwrap());
    for target in [&victim.node.file.subnet, &other.node.file.subnet] {
        let via = victim.node.host.address;
        stranger.namespace.ip(&format!("route add {target} via {via}")).unwrap();
    }
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let has_tunnel = matches!(backend, UDP | VXLAN);
    let names = [Name::PeersPod, Name::OwnPod, Name::OwnPodSentOn];
    // Where a route leads straight to a peer, its pods' packets are plain, and nothing in one tells who sent it.
    for name in names.into_iter().filter(|name| has_tunnel || !matches!(name, Name::PeersPod)) {
        let (source, target) = match name {
            Name::PeersPod => (other_pod.address, victims_pod),
            Name::OwnPod => (Ipv4Addr::from(u32::from(victims_pod.address) + 1), victims_pod),
            Name::OwnPodSentOn => (victims_pod.address, other_pod),
        };
        let before = victim.daemon.count(counted_at, "spoofed_source").unwrap();
        let seen = Capture::start(&target.namespace, "eth0").unwrap();
        send_plain(&stranger, source, target.address, packets());
        assert_eq!(delivered(&seen), 0, "{name:?}");
        let counted = victim.daemon.count(counted_at, "spoofed_source").unwrap() - before;
        check_counted(counted, packets() as u64);
    }
    // In its own name it may, as far as routes and rules let it.
    let seen = Capture::start(&victims_pod.namespace, "eth0").unwrap();
    send_plain(&stranger, stranger.address, victims_pod.address, 100);
    assert_eq!(delivered(&seen), 100, "in its own name");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

/// A pod sends plain packets in the name of a pod of a third host.
#[rstest]
fn a_pod_does_not_speak_for_another_hosts_pod(#[values(VXLAN, UDP, HOST_GW)] backend: &str) {
    let plan = Plan { places: vec![Place::Near; 3], ..plan(backend) };
    let cluster = Cluster::start(&plan.with_flag("--pod-bypass=flow")).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let [attacker, target, victim] = [0, 1, 2].map(|member| cluster.pod(member).unwrap());
    let seen = Capture::start(&target.namespace, "eth0").unwrap();
    send_plain(attacker, victim.address, target.address, packets());
    assert_eq!(delivered(&seen), 0);
    let counted = cluster.members[0].daemon.count("pod_out", "spoofed_source").unwrap();
    check_counted(counted, packets() as u64);
}
