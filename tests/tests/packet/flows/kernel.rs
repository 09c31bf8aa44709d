use flannel_common::flow::{
    Bypass, BypassEntry, BypassHop, Direction, Flow, FlowKey, IngressState, OVER, PLACES, Way, ticks,
};
use flannel_common::maps::{Backend, Guard, Node};
use flannel_common::wire::Ipv4Header;
use flannel_common::{Hook, Ip4, Mac, Reason};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::packet;
use rstest::rstest;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::world::Packet;
use super::{Carried, DATA, LOCAL_POD, PEER_POD, frame};
use crate::frames::{self, DEVICE_MAC, FLOW_SEED, Inner, Outer, PEERS, POD_MAC};
use crate::kernel::{Kernel, tc_action};

/// The interface packets of a test run are seen at: the loopback one.
const HERE: u32 = 1;
/// One by which the stack has received them.
const BRIDGE: u32 = 5;

fn node(backend: Backend, bypass: Bypass) -> Node {
    let encapsulation = if backend == Backend::Udp { Encapsulation::Udp } else { Encapsulation::Vxlan };
    let node = frames::node(encapsulation, Guard::Strict);
    Node { backend: backend as u32, bypass: bypass as u32, ..node }
}

/// A flow whose sample is this frame.
fn sampled(frame: &[u8], entered: IngressState) -> Flow {
    let packet = Packet::at(HERE, frame.to_vec());
    let fingerprint = packet::Packet::read(&packet).unwrap().fingerprint(&packet);
    let at = frames::monotonic();
    Flow {
        entered: IngressState { at, sampled: ticks(at) as u16, fingerprint, ..entered },
        in_stack: 1,
        ..Flow::default()
    }
}

fn key(frame: &[u8], direction: Direction) -> FlowKey {
    packet::Packet::read(&Packet::at(HERE, frame.to_vec())).unwrap().key(direction)
}

/// A flow that can always bypass the stack.
fn bypassing(entered: IngressState, onward: BypassHop) -> Flow {
    let left = BypassEntry { until: u64::MAX, interface: 77, mtu: 1450, onward, ..BypassEntry::default() };
    Flow { entered: IngressState { interface: HERE, ..entered }, left, ..Flow::default() }
}

/// One of a pod of this host.
fn short_out(way: Way) -> Flow {
    let onward = BypassHop {
        destination: Mac([2, 0, 0, 0, 0, 9]),
        source: Mac([2, 0, 0, 0, 0, 1]),
        way: way as u16,
        ..BypassHop::default()
    };
    let peer = frames::peers()[0].1;
    let onward = match way {
        Way::Plain => onward,
        Way::Tunnel | Way::Segmenter | Way::FormerTunnel => {
            BypassHop { public_ip: peer.public_ip, vtep_mac: peer.vtep_mac, ..onward }
        }
    };
    let entered = IngressState {
        ttl: 64,
        destination: Mac(DEVICE_MAC),
        source: Mac(POD_MAC),
        ..IngressState::default()
    };
    bypassing(entered, onward)
}

/// One of a peer, through the tunnel or plain.
fn short_in(outer_source: Ip4) -> Flow {
    let onward = BypassHop {
        destination: Mac([2, 0, 0, 0, 0, 9]),
        source: Mac([2, 0, 0, 0, 0, 1]),
        ..BypassHop::default()
    };
    bypassing(IngressState { ttl: 63, outer_source, ..IngressState::default() }, onward)
}

/// The frame with another TOS byte.
fn with_tos(mut frame: Vec<u8>, tos: u8) -> Vec<u8> {
    let mut ip = Ipv4Header::read_from_bytes(&frame[14..34]).unwrap();
    ip.tos = tos;
    ip.checksum = ip.computed_checksum();
    frame[14..34].copy_from_slice(ip.as_bytes());
    frame
}

fn assert_counted_once(kernel: &Kernel, hook: Hook, expected: Reason) {
    for reason in Reason::ALL {
        let packets = kernel.count(hook, *reason).packets;
        assert_eq!(packets, u64::from(*reason == expected), "{reason} at {hook}");
    }
}

#[rstest]
#[case::to_the_world(Carried::Udp, [8, 8, 8, 8], 100, Reason::ToStack)]
#[case::to_nobody(Carried::Udp, [10, 5, 99, 8], 100, Reason::ToStack)]
#[case::unknown_flow(Carried::Echo, PEER_POD, 100, Reason::Learning)]
#[case::begin_of_a_connection(Carried::Tcp { syn: true, fin: false, rst: false }, PEER_POD, 0, Reason::FlowEdge)]
#[case::too_long(Carried::Udp, PEER_POD, 1450 - 27, Reason::TooLong)]
fn a_pods_packet_that_enters_the_stack(
    #[case] carried: Carried,
    #[case] to: [u8; 4],
    #[case] payload: usize,
    #[case] reason: Reason,
) {
    let mut kernel = Kernel::load_for(&node(Backend::Vxlan, Bypass::Flow), &["pod_out"]);
    let known = frame(Carried::Udp, LOCAL_POD, PEER_POD, 64, 0);
    kernel.put_flow(key(&known, Direction::Out), short_out(Way::Tunnel));
    let packet = frame(carried, LOCAL_POD, to, 64, payload);
    let answer = kernel.run("pod_out", &packet);
    assert_eq!((answer.action, answer.frame), (tc_action(reason.verdict()), packet));
    assert_counted_once(&kernel, Hook::PodOut, reason);
}

#[rstest]
#[case::vxlan(Backend::Vxlan, Carried::Udp)]
#[case::udp(Backend::Udp, Carried::Echo)]
#[case::tcp(Backend::Vxlan, DATA)]
fn a_pods_packet_that_bypasses_the_stack(
    #[case] backend: Backend,
    #[case] carried: Carried,
    #[values(0, Node::DSCP)] copied_tos: u32,
) {
    let node = Node { copied_tos, ..node(backend, Bypass::Flow) };
    let mut kernel = Kernel::load_for(&node, &["pod_out"]);
    let packet = with_tos(frame(carried, LOCAL_POD, PEER_POD, 64, 200), 0xb8 | 0b11);
    kernel.put_flow(key(&packet, Direction::Out), short_out(Way::Tunnel));
    let answer = kernel.run("pod_out", &packet);
    assert_eq!(answer.action, tc_action(Reason::Bypassed.verdict()));
    assert_counted_once(&kernel, Hook::PodOut, Reason::Bypassed);
    assert_eq!(kernel.peer_count(Ip4::from_octets(PEERS[0].0)), (1, 0));
    assert_eq!(answer.frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);

    // As if the stack had counted the hop and the encapsulating program had got it from the flannel device.
    let mut expected = with_tos(frame(carried, LOCAL_POD, PEER_POD, 63, 200), 0xb8 | 0b11);
    expected[6..12].copy_from_slice(&DEVICE_MAC);
    let encapsulation = if backend == Backend::Udp { Encapsulation::Udp } else { Encapsulation::Vxlan };
    crate::model::encapsulate_at(&node, encapsulation, &mut expected).unwrap();
    assert_eq!(u32::from(answer.frame[15]), 0xb8 & copied_tos | 0b10, "outer DSCP and ECN");
    let (mut found, mut expected) = (frames::without_hash(answer.frame), frames::without_hash(expected));
    found.drain(..12);
    expected.drain(..12);
    assert_eq!(found, expected);
}

#[test]
fn a_pods_packet_for_a_stock_peer_goes_to_the_segmenter() {
    let mut kernel = Kernel::load_for(&node(Backend::Udp, Bypass::Flow), &["pod_out"]);
    let packet = frame(DATA, LOCAL_POD, PEER_POD, 64, 200);
    kernel.put_flow(key(&packet, Direction::Out), short_out(Way::Segmenter));
    let answer = kernel.run("pod_out", &packet);
    assert_eq!(answer.frame, frame(DATA, LOCAL_POD, PEER_POD, 63, 200));
    assert_counted_once(&kernel, Hook::PodOut, Reason::ToSegment);
}

#[rstest]
#[case::host_gw(Backend::HostGw)]
#[case::direct_routing(Backend::Vxlan)]
fn packets_by_a_route_bypass_as_they_are(#[case] backend: Backend) {
    let mut kernel = Kernel::load_for(&node(backend, Bypass::Flow), &["pod_out", "direct_in"]);
    kernel.put_peer(Ip4::from_octets(PEERS[0].0), |peer| peer.direct = 1);
    let sent = frame(Carried::Udp, LOCAL_POD, PEER_POD, 64, 200);
    kernel.put_flow(key(&sent, Direction::Out), short_out(Way::Plain));
    let answer = kernel.run("pod_out", &sent);
    assert_eq!(answer.action, tc_action(Reason::Bypassed.verdict()));
    assert_eq!(answer.frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
    assert_eq!(answer.frame[14..], frame(Carried::Udp, LOCAL_POD, PEER_POD, 63, 200)[14..]);

    let arriving = frame(Carried::Udp, PEER_POD, LOCAL_POD, 63, 200);
    kernel.put_flow(key(&arriving, Direction::In), short_in(Ip4::UNSPECIFIED));
    let answer = kernel.run("direct_in", &arriving);
    assert_eq!(answer.action, tc_action(Reason::Bypassed.verdict()));
    assert_eq!(answer.frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
    assert_eq!(answer.frame[14..], frame(Carried::Udp, PEER_POD, LOCAL_POD, 62, 200)[14..]);
    assert_counted_once(&kernel, Hook::DirectIn, Reason::Bypassed);
    assert_eq!(kernel.peer_count(Ip4::from_octets(PEERS[0].0)), (1, 1));
}

#[rstest]
#[case::by_the_tunnel(0, Reason::ToStack)]
#[case::by_a_route(1, Reason::Learning)]
fn only_peers_a_route_leads_to_send_packets_as_they_are(#[case] direct: u16, #[case] expected: Reason) {
    let mut kernel = Kernel::load_for(&node(Backend::Vxlan, Bypass::Flow), &["direct_in"]);
    kernel.put_peer(Ip4::from_octets(PEERS[0].0), |peer| peer.direct = direct);
    kernel.run("direct_in", &frame(Carried::Udp, PEER_POD, LOCAL_POD, 63, 200));
    assert_counted_once(&kernel, Hook::DirectIn, expected);
}

#[rstest]
#[case::vxlan(Backend::Vxlan, "vxlan_decap")]
#[case::udp(Backend::Udp, "udp_decap")]
fn a_packet_out_of_the_tunnel_is_handed_over(#[case] backend: Backend, #[case] program: &str) {
    let encapsulation = if backend == Backend::Udp { Encapsulation::Udp } else { Encapsulation::Vxlan };
    let mut kernel = Kernel::load_for(&node(backend, Bypass::Flow), &[program]);
    let inner = Inner::new(PEER_POD, LOCAL_POD);
    let peer = Ip4::from_octets(PEERS[0].1);
    kernel.put_flow(key(&inner.frame(), Direction::In), short_in(peer));
    let outer = Outer::new(PEERS[0].1, frames::port(encapsulation), inner.clone());
    let answer = kernel.run(program, &outer.frame(encapsulation));
    assert_eq!(answer.action, tc_action(Reason::Bypassed.verdict()));
    assert_counted_once(&kernel, Hook::Decap, Reason::Bypassed);
    assert_eq!(answer.frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
    assert_eq!(answer.frame[14..], Inner { ttl: 62, ..inner }.frame()[14..]);
    let ip = Ipv4Header::read_from_bytes(&answer.frame[14..34]).unwrap();
    assert_eq!(ip.checksum, ip.computed_checksum());

    // A forgery is none of the flow.
    let forged = Outer { source: PEERS[1].1, ..outer };
    kernel.run(program, &forged.frame(encapsulation));
    assert_eq!(kernel.count(Hook::Decap, Reason::InnerSourceMismatch).packets, 1);
}

#[rstest]
#[case::pod_in("pod_in", Hook::PodIn, Direction::In, (PEER_POD, LOCAL_POD))]
#[case::direct_out("direct_out", Hook::DirectOut, Direction::Out, (LOCAL_POD, PEER_POD))]
fn a_packet_that_leaves_the_stack_confirms_its_flow(
    #[case] program: &str,
    #[case] hook: Hook,
    #[case] direction: Direction,
    #[case] ends: ([u8; 4], [u8; 4]),
) {
    let mut node = node(Backend::HostGw, Bypass::Flow);
    node.device = BRIDGE;
    let mut kernel = Kernel::load_for(&node, &[program]);
    let leaving = frame(Carried::Udp, ends.0, ends.1, 62, 200);
    kernel.run_received_by(program, &leaving, BRIDGE);
    assert_counted_once(&kernel, hook, Reason::Unconfirmed);

    let key = key(&leaving, direction);
    let entered = IngressState { interface: HERE, ttl: 63, ..IngressState::default() };
    kernel.put_flow(key, sampled(&frame(Carried::Udp, ends.0, ends.1, 62, 201), entered));
    kernel.run_received_by(program, &leaving, BRIDGE);
    assert_eq!(kernel.count(hook, Reason::Confirmed).packets, 0, "another packet was the sample");
    kernel.put_flow(key, sampled(&leaving, entered));
    kernel.run_received_by(program, &leaving, BRIDGE);
    let is_to_pod = hook == Hook::PodIn;
    assert_eq!(kernel.count(hook, Reason::Confirmed).packets, u64::from(!is_to_pod));
    if is_to_pod {
        // The bridge has learned who is behind the port.
        kernel.put_station(HERE, Mac(DEVICE_MAC));
        kernel.put_flow(key, sampled(&leaving, entered));
        kernel.run_received_by(program, &leaving, BRIDGE);
        assert_eq!(kernel.count(hook, Reason::Confirmed).packets, 1);
    }
    let flow = kernel.flow(&key);
    assert!(flow.left.until > frames::monotonic());
    assert_eq!((flow.left.interface, flow.in_stack, flow.left.packets), (HERE, 0, 1));
    assert_eq!(flow.left.mtu, 65_536, "that of the loopback interface");
    assert_eq!(flow.left.onward.way, Way::Plain as u16);
    assert_eq!((flow.left.onward.destination, flow.left.onward.source), (Mac(DEVICE_MAC), Mac(POD_MAC)));
}

#[rstest]
#[case::vxlan(Backend::Vxlan, "vxlan_encap", Way::Tunnel)]
#[case::udp(Backend::Udp, "udp_encap", Way::Tunnel)]
#[case::udp_to_a_stock_peer(Backend::Udp, "udp_encap", Way::Segmenter)]
fn a_flow_through_the_tunnel_knows_its_peer(
    #[case] backend: Backend,
    #[case] program: &str,
    #[case] expected: Way,
) {
    let mut kernel = Kernel::load_for(&node(backend, Bypass::Flow), &[program]);
    if expected == Way::Segmenter {
        kernel.put_peer(Ip4::from_octets(PEERS[0].0), |peer| peer.whole = 0);
    }
    let leaving = frame(Carried::Udp, LOCAL_POD, PEER_POD, 63, 200);
    let key = key(&leaving, Direction::Out);
    let entered = IngressState { interface: 77, ttl: 64, ..IngressState::default() };
    kernel.put_flow(key, sampled(&leaving, entered));
    kernel.run_received_by(program, &leaving, BRIDGE);

    let left = kernel.flow(&key).left;
    assert!(left.until > frames::monotonic());
    let peer = frames::peers()[0].1;
    // The kernel does not say how the peer is reached: by the underlay, and the kernel routes its packets.
    let expected = BypassHop {
        device: node(backend, Bypass::Flow).underlay,
        public_ip: peer.public_ip,
        vtep_mac: peer.vtep_mac,
        way: expected as u16,
        ..BypassHop::default()
    };
    assert_eq!(left.onward, expected);
}

#[test]
fn a_flow_takes_a_place_that_is_free() {
    let mut kernel = Kernel::load_for(&node(Backend::Vxlan, Bypass::Flow), &["pod_out"]);
    let packet = frame(Carried::Udp, LOCAL_POD, PEER_POD, 64, 0);
    let new = key(&packet, Direction::Out);
    let first = new.place(FLOW_SEED);
    let with_ports = |destination_port| {
        (0..=u16::MAX).map(move |source_port| FlowKey { source_port, destination_port, ..new })
    };
    let neighbours: Vec<_> = (1..9)
        .flat_map(with_ports)
        .filter(|key| key.place(FLOW_SEED) == first && *key != new)
        .take(PLACES as usize)
        .collect();
    assert_eq!(neighbours.len(), PLACES as usize);
    let now = frames::monotonic();
    for (place, key) in (0..).zip(&neighbours) {
        let entered = IngressState { at: now, ..IngressState::default() };
        kernel.put_flow_at(first + place, *key, Flow { entered, ..Flow::default() });
    }
    let keys = |kernel: &Kernel| [0, 1, 2, 3].map(|place| kernel.flow_at(first + place).key);
    kernel.run("pod_out", &packet);
    assert_counted_once(&kernel, Hook::PodOut, Reason::Learning);
    assert_eq!(keys(&kernel), neighbours[..], "all of them may bypass");

    let entered = IngressState { at: now - 2 * OVER, ..IngressState::default() };
    kernel.put_flow_at(first + 2, neighbours[2], Flow { entered, ..Flow::default() });
    kernel.run("pod_out", &packet);
    assert_eq!(keys(&kernel), [neighbours[0], neighbours[1], new, neighbours[3]]);
    assert_eq!(kernel.flow_at(first + 2).flow.in_stack, 1);

    // It is found there, and takes no other place.
    kernel.run("pod_out", &packet);
    assert_eq!(kernel.flow_at(first + 2).flow.in_stack, 2);
}
