use flannel_common::flow::{
    ANNOUNCE, Bypass, BypassEntry, BypassHop, DRAINED, Direction, MANY, OVER, VALID, WORTHWHILE,
    Way as Onwards,
};
use flannel_common::maps::{Guard, Node};
use flannel_common::wire::Ipv4Header;
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::{Exit, Origin, bypass, enter, from_peer, leave, to_peer};
use flannel_ebpf::frame::{Encapsulation, Frame as _};
use flannel_ebpf::packet;
use rstest::rstest;
use zerocopy::FromBytes as _;

use super::world::{MTU, Memory, PRIORITY, Packet};
use super::{Carried, DATA, LOCAL_POD, PEER_POD, frame};
use crate::frames::{self, DEVICE_MAC};

/// Interfaces: of a pod's port, of the bridge, of the flannel device, of the underlay.
const PORT: u32 = 7;
const BRIDGE: u32 = 8;
const DEVICE: u32 = 4242;
const UNDERLAY: u32 = 4243;

fn node(bypass: Bypass) -> Node {
    Node { bypass: bypass as u32, ..frames::node(Encapsulation::Vxlan, Guard::Strict) }
}

const ONWARD: BypassHop = BypassHop {
    destination: Mac([2, 0, 0, 0, 0, 0x11]),
    source: Mac([2, 0, 0, 0, 0, 0x12]),
    public_ip: Ip4::from_octets([192, 168, 0, 2]),
    vtep_mac: Mac([2, 0, 0, 0, 0, 0x13]),
    way: Onwards::Tunnel as u16,
    device: UNDERLAY,
};

/// How a packet skips the stack, or why it enters it.
fn enter_from(origin: Origin, packet: &Packet, memory: &Memory) -> Result<BypassEntry, Reason> {
    let read = packet::Packet::read(packet)?;
    bypass(packet, &read, origin, memory).ok_or_else(|| enter(packet, &read, origin, memory))
}

/// One packet from a pod to a peer.
struct Way {
    memory: Memory,
    node: Node,
    carried: Carried,
}

impl Way {
    fn new(carried: Carried) -> Self {
        Self { memory: Memory::new(), node: node(Bypass::Flow), carried }
    }

    fn sent(&self) -> Packet {
        Packet::at(PORT, frame(self.carried, LOCAL_POD, PEER_POD, 64, 100))
    }

    fn routed(&self) -> Packet {
        Packet {
            received_by: BRIDGE,
            ..Packet::at(DEVICE, frame(self.carried, LOCAL_POD, PEER_POD, 63, 100))
        }
    }

    fn enter(&self, packet: &Packet) -> Result<u32, Reason> {
        enter_from(Origin::Pod, packet, &self.memory).map(|left| left.interface)
    }

    fn leave(&self, packet: &Packet) -> Reason {
        let exit = Exit::Tunnel(ONWARD, self.memory.now.get() + VALID);
        leave(packet, &self.memory, &self.node, exit)
    }

    /// Sends a packet through the stack.
    fn learn(&self) {
        assert_eq!(self.enter(&self.sent()), Err(Reason::Learning));
        assert_eq!(self.leave(&self.routed()), Reason::Confirmed);
    }
}

#[rstest]
#[case::datagram(Carried::Udp)]
#[case::echo(Carried::Echo)]
fn a_flow_is_short_once_a_packet_left_unchanged(#[case] carried: Carried) {
    let way = Way::new(carried);
    way.learn();
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
    way.memory.pass(VALID - 1);
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
    way.memory.pass(1);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning), "it is proved anew");
    assert_eq!(way.leave(&way.routed()), Reason::Confirmed);
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
}

#[test]
fn what_the_stack_gave_the_packet_is_kept() {
    let way = Way::new(Carried::Udp);
    way.learn();
    let flow = way.memory.flows.borrow().values().next().unwrap().get();
    assert_eq!((flow.left.mtu, flow.left.priority, flow.left.packets), (MTU, PRIORITY, 1));
    assert_eq!(flow.left.onward, ONWARD);
}

#[rstest]
#[case::hop_not_counted(|packet: &mut Packet| packet.bytes[22] = 64)]
#[case::two_hops(|packet: &mut Packet| packet.bytes[22] = 62)]
#[case::other_source(|packet: &mut Packet| packet.bytes[29] = 8)]
#[case::other_destination(|packet: &mut Packet| packet.bytes[33] = 8)]
#[case::other_source_port(|packet: &mut Packet| packet.bytes[35] ^= 1)]
#[case::other_destination_port(|packet: &mut Packet| packet.bytes[37] ^= 1)]
#[case::other_dscp(|packet: &mut Packet| packet.bytes[15] = 0xb8)]
#[case::marked(|packet: &mut Packet| packet.mark = 1)]
#[case::fragment(|packet: &mut Packet| packet.bytes[20] = 0x20)]
#[case::not_by_the_stack(|packet: &mut Packet| packet.received_by = PORT)]
#[case::of_the_host(|packet: &mut Packet| packet.received_by = 0)]
fn a_packet_that_left_otherwise_proves_nothing(#[case] change: fn(&mut Packet)) {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    let mut routed = way.routed();
    change(&mut routed);
    assert_eq!(way.leave(&routed), Reason::Unconfirmed);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
}

#[rstest]
#[case::other_port_of_the_bridge(|packet: &mut Packet| packet.interface = PORT + 1)]
#[case::other_receiver(|packet: &mut Packet| packet.bytes[0] ^= 2)]
#[case::other_sender(|packet: &mut Packet| packet.bytes[6] ^= 2)]
#[case::fewer_hops(|packet: &mut Packet| packet.bytes[22] = 63)]
fn a_packet_that_enters_otherwise_is_proved_anew(#[case] change: fn(&mut Packet)) {
    let way = Way::new(Carried::Udp);
    way.learn();
    let mut other = way.sent();
    change(&mut other);
    assert_eq!(way.enter(&other), Err(Reason::Learning));
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning), "and so is the former way");
}

/// What is told of a packet that left, and was not the one that entered.
#[rstest]
#[case::another_number(Carried::Udp, |packet: &mut Packet| packet.bytes[19] ^= 1)]
#[case::another_length(Carried::Udp, |packet: &mut Packet| packet.bytes[39] ^= 1)]
#[case::another_payload(Carried::Udp, |packet: &mut Packet| packet.bytes[43] ^= 1)]
#[case::more_of_another_payload(Carried::Udp, |packet: &mut Packet| packet.bytes[49] ^= 1)]
#[case::translated_sequence(DATA, |packet: &mut Packet| packet.bytes[41] ^= 1)]
#[case::translated_acknowledgement(DATA, |packet: &mut Packet| packet.bytes[45] ^= 1)]
#[case::another_echo(Carried::Echo, |packet: &mut Packet| packet.bytes[41] ^= 1)]
fn a_packet_proves_nothing_for_another(#[case] carried: Carried, #[case] change: fn(&mut Packet)) {
    let way = Way { node: node(Bypass::Direct), ..Way::new(carried) };
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    let mut other = way.routed();
    change(&mut other);
    assert_eq!(way.leave(&other), Reason::Unconfirmed);
    assert_eq!(way.leave(&way.routed()), Reason::Confirmed);
}

/// The kernel finishes a checksum that the pod has left to the card.
#[test]
fn a_checksum_that_is_completed_changes_nothing() {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    let mut routed = way.routed();
    routed.bytes[40] ^= 0xff;
    assert_eq!(way.leave(&routed), Reason::Confirmed);
}

/// The sample stays until it leaves, so that packets behind it do not put it off for ever; but a lost one is replaced.
#[test]
fn one_packet_at_a_time_is_the_sample() {
    let way = Way::new(Carried::Udp);
    let behind = |mut packet: Packet| {
        packet.bytes[19] ^= 1;
        packet
    };
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    assert_eq!(way.enter(&behind(way.sent())), Err(Reason::Learning));
    assert_eq!(way.leave(&way.routed()), Reason::Confirmed);
    assert_eq!(way.leave(&behind(way.routed())), Reason::Unconfirmed);

    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    let mut samples = 0;
    for _ in 0..10 {
        way.memory.pass(DRAINED / 2);
        assert_eq!(way.enter(&behind(way.sent())), Err(Reason::Learning));
        samples += u32::from(way.leave(&behind(way.routed())) == Reason::Confirmed);
        if samples > 0 {
            break;
        }
    }
    assert_eq!(samples, 1);
}

/// A neighbour sends in a pod's name. The rule that drops that is not seen here: only the pod's packets leave.
#[test]
fn no_way_is_proved_while_packets_enter_by_two() {
    let way = Way::new(Carried::Udp);
    let neighbour = || Packet { interface: PORT + 1, ..way.sent() };
    way.learn();
    assert_eq!(way.enter(&neighbour()), Err(Reason::Learning));
    for _ in 0..10 {
        assert_eq!(way.leave(&way.routed()), Reason::Unconfirmed);
        assert_eq!(way.enter(&neighbour()), Err(Reason::Learning));
        assert_eq!(way.leave(&way.routed()), Reason::Unconfirmed);
        assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
        way.memory.pass(VALID / 4);
    }
    // The neighbour has given up; or the pod has moved.
    way.memory.pass(OVER + 3 * DRAINED);
    way.learn();
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
    assert_eq!(way.enter(&neighbour()), Err(Reason::Learning), "and never by the neighbour's");
}

#[rstest]
#[case::last_hop(|packet: &mut Packet| packet.bytes[22] = 1)]
#[case::options(|packet: &mut Packet| packet.bytes[14] = 0x46)]
#[case::fragment(|packet: &mut Packet| packet.bytes[20] = 0x20)]
#[case::later_fragment(|packet: &mut Packet| packet.bytes[21] = 1)]
#[case::arp(|packet: &mut Packet| packet.bytes[13] = 6)]
#[case::other_protocol(|packet: &mut Packet| packet.bytes[23] = 132)]
#[case::cut(|packet: &mut Packet| packet.bytes.truncate(41))]
fn what_is_no_packet_of_a_flow_is_left_to_the_stack(#[case] change: fn(&mut Packet)) {
    let way = Way::new(Carried::Udp);
    way.learn();
    let mut packet = way.sent();
    change(&mut packet);
    assert_eq!(way.enter(&packet), Err(Reason::ToStack));
}

#[test]
fn an_error_message_belongs_to_no_flow() {
    let way = Way::new(Carried::Unreachable);
    assert_eq!(way.enter(&way.sent()), Err(Reason::ToStack));
}

#[test]
fn another_generation_ends_what_was_learned() {
    let way = Way::new(Carried::Udp);
    way.learn();
    way.memory.generation.set(2);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    way.memory.generation.set(3);
    assert_eq!(way.leave(&way.routed()), Reason::Unconfirmed, "it entered before");
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    assert_eq!(way.leave(&way.routed()), Reason::Confirmed);
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
}

#[test]
fn a_packet_that_comes_late_proves_nothing() {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    way.memory.pass(VALID);
    assert_eq!(way.leave(&way.routed()), Reason::Unconfirmed);
}

#[test]
fn nobody_overtakes_packets_in_the_stack() {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    assert_eq!(way.leave(&way.routed()), Reason::Confirmed);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning), "one is still there");
    way.leave(&way.routed());
    way.leave(&way.routed());
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
}

#[test]
fn packets_lost_in_the_stack_are_not_waited_for() {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    way.learn();
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    way.memory.pass(DRAINED + 1);
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE), "by the clock");

    let way = Way::new(Carried::Udp);
    for _ in 0..MANY {
        assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    }
    way.learn();
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE), "by their number");
}

/// The packets of a flow differ, so that only the sample proves the way.
#[rstest]
#[case::one_by_one(0, 60)]
#[case::with_always_one_in_the_stack(1, 200)]
fn a_packet_lost_in_the_stack_is_not_waited_for_behind_the_next_sample(
    #[case] in_stack: u8,
    #[case] most: u8,
) {
    let way = Way::new(Carried::Udp);
    let numbered = |mut packet: Packet, number: u8| {
        packet.bytes[19] = number;
        packet
    };
    assert_eq!(way.enter(&numbered(way.sent(), 0)), Err(Reason::Learning), "this one is lost");
    let is_short = |number: &u8| {
        way.memory.pass(1_000_000);
        let entered = way.enter(&numbered(way.sent(), *number));
        if *number > in_stack {
            way.leave(&numbered(way.routed(), *number - in_stack));
        }
        entered.is_ok()
    };
    let packets = (1..=u8::MAX).find(is_short).unwrap();
    assert!(packets < most, "after {packets} milliseconds");
}

#[test]
fn a_packet_lost_in_the_stack_does_not_keep_a_busy_flow_there() {
    let way = Way::new(Carried::Udp);
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
    let is_short = |_: &u16| {
        let entered = way.enter(&way.sent());
        way.leave(&way.routed());
        entered.is_ok()
    };
    let packets = (1..=2 * MANY).find(is_short).unwrap();
    assert!(packets > 1 && packets <= MANY + 1, "{packets}");
}

#[rstest]
#[case::ordinary(0, MTU - 28, true)]
#[case::too_long(0, MTU - 27, false)]
#[case::super_packet(MTU - 28, 3 * (MTU - 28), true)]
#[case::super_packet_of_long_ones(MTU - 27, 3 * (MTU - 27), false)]
fn a_packet_longer_than_the_way_takes_is_left_to_the_stack(
    #[case] segment_len: u32,
    #[case] payload: u32,
    #[case] fits: bool,
) {
    let way = Way::new(Carried::Udp);
    way.learn();
    let bytes = frame(Carried::Udp, LOCAL_POD, PEER_POD, 64, payload as usize);
    let packet = Packet { segment_len, ..Packet::at(PORT, bytes) };
    assert_eq!(way.enter(&packet), if fits { Ok(DEVICE) } else { Err(Reason::TooLong) });
}

#[test]
fn a_connection_is_announced_and_short_once_it_is_approved() {
    let way = Way::new(DATA);
    let send = || {
        assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
        way.leave(&way.routed())
    };
    for _ in 1..WORTHWHILE {
        assert_eq!(send(), Reason::Unconfirmed);
    }
    assert_eq!(way.memory.announced.borrow().len(), 0, "it may be over soon");
    for _ in 0..5 {
        assert_eq!(send(), Reason::Unconfirmed);
    }
    assert_eq!(way.memory.announced.borrow().len(), 1);
    way.memory.pass(ANNOUNCE + 1);
    send();
    assert_eq!(way.memory.announced.borrow().len(), 2, "nobody heard it");

    let connection = way.memory.announced.borrow()[0];
    way.memory.approved.borrow_mut().insert(connection);
    assert_eq!(send(), Reason::Confirmed);
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
}

#[test]
fn without_regard_to_connection_tracking_nobody_is_asked() {
    let way = Way { node: node(Bypass::Direct), ..Way::new(DATA) };
    way.learn();
    assert_eq!(way.enter(&way.sent()), Ok(DEVICE));
    assert_eq!(way.memory.announced.borrow().len(), 0);
}

#[rstest]
#[case::begin(Carried::Tcp { syn: true, fin: false, rst: false })]
#[case::end(Carried::Tcp { syn: false, fin: true, rst: false })]
#[case::reset(Carried::Tcp { syn: false, fin: false, rst: true })]
fn an_edge_of_a_connection_ends_what_was_learned(#[case] edge: Carried) {
    let way = Way { node: node(Bypass::Direct), ..Way::new(DATA) };
    way.learn();
    let key = *way.memory.flows.borrow().keys().next().unwrap();
    way.memory.approved.borrow_mut().insert(key.connection());
    let packet = Packet::at(PORT, frame(edge, LOCAL_POD, PEER_POD, 64, 0));
    assert_eq!(way.enter(&packet), Err(Reason::FlowEdge));
    assert!(way.memory.approved.borrow().is_empty());
    assert_eq!(way.enter(&way.sent()), Err(Reason::Learning));
}

#[test]
fn both_directions_are_of_one_connection() {
    let memory = Memory::new();
    let key = |from, to, direction| {
        let packet = Packet::at(PORT, frame(DATA, from, to, 64, 0));
        packet::Packet::read(&packet).unwrap().key(direction)
    };
    let out = key(LOCAL_POD, PEER_POD, Direction::Out);
    let mut back = key(PEER_POD, LOCAL_POD, Direction::In);
    (back.source_port, back.destination_port) = (back.destination_port, back.source_port);
    assert_eq!(out.connection(), back.connection());
    assert_ne!(out, back);
    drop(memory);
}

#[test]
fn a_packet_of_a_peer_is_handed_over_as_the_stack_would_have() {
    let memory = Memory::new();
    let node = node(Bypass::Flow);
    let arrived = Packet::at(UNDERLAY, frame(Carried::Udp, PEER_POD, LOCAL_POD, 63, 100));
    let origin = Origin::Tunnel(Ip4::from_octets([192, 168, 0, 2]), false);
    assert_eq!(enter_from(origin, &arrived, &memory), Err(Reason::Learning));
    let mut routed =
        Packet { received_by: DEVICE, ..Packet::at(PORT, frame(Carried::Udp, PEER_POD, LOCAL_POD, 62, 100)) };
    let made_up = Packet { received_by: PORT + 1, ..routed.clone() };
    assert_eq!(leave(&made_up, &memory, &node, Exit::Pod), Reason::Unconfirmed, "a neighbour's");
    routed.bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
    assert_eq!(leave(&routed, &memory, &node, Exit::Pod), Reason::Unconfirmed, "the bridge floods");
    memory.stations.borrow_mut().insert((PORT, Mac([2, 0, 0, 0, 0, 9])));
    let elsewhere = Packet { interface: PORT + 1, ..routed.clone() };
    assert_eq!(leave(&elsewhere, &memory, &node, Exit::Pod), Reason::Unconfirmed, "a copy at another port");
    assert_eq!(leave(&routed, &memory, &node, Exit::Pod), Reason::Confirmed);

    let mut arrived = arrived;
    let left = enter_from(origin, &arrived, &memory).unwrap();
    assert_eq!((left.interface, left.onward.way), (PORT, Onwards::Plain as u16));
    let read = packet::Packet::read(&arrived).unwrap();
    read.hop(&mut arrived, read.ip.tos).unwrap();
    arrived.address(left.onward.destination, left.onward.source).unwrap();
    assert_eq!(arrived.bytes, routed.bytes);
    let ip = Ipv4Header::read_from_bytes(&arrived.bytes[14..34]).unwrap();
    assert_eq!(ip.checksum, ip.computed_checksum());
}

#[rstest]
#[case::by_another(Origin::Tunnel(Ip4::from_octets([192, 168, 0, 3]), false))]
#[case::as_it_takes_packets_whole(Origin::Tunnel(Ip4::from_octets([192, 168, 0, 2]), true))]
#[case::plain(Origin::Underlay)]
fn a_peers_flow_is_short_only_as_its_peer_sent_it(#[case] other: Origin) {
    let memory = Memory::new();
    let origin = Origin::Tunnel(Ip4::from_octets([192, 168, 0, 2]), false);
    let arrived = Packet::at(UNDERLAY, frame(Carried::Udp, PEER_POD, LOCAL_POD, 63, 100));
    let routed =
        Packet { received_by: DEVICE, ..Packet::at(PORT, frame(Carried::Udp, PEER_POD, LOCAL_POD, 62, 100)) };
    memory.stations.borrow_mut().insert((PORT, Mac(DEVICE_MAC)));
    assert_eq!(enter_from(origin, &arrived, &memory), Err(Reason::Learning));
    assert_eq!(leave(&routed, &memory, &node(Bypass::Flow), Exit::Pod), Reason::Confirmed);
    assert!(enter_from(origin, &arrived, &memory).is_ok());
    let read = packet::Packet::read(&arrived).unwrap();
    assert_eq!(bypass(&arrived, &read, other, &memory), None, "the guard has to be asked");
}

#[test]
fn the_congestion_a_packet_met_is_written_with_the_hop() {
    let mut arrived = Packet::at(UNDERLAY, frame(Carried::Udp, PEER_POD, LOCAL_POD, 63, 100));
    let read = packet::Packet::read(&arrived).unwrap();
    read.hop(&mut arrived, 0b11).unwrap();
    let ip = Ipv4Header::read_from_bytes(&arrived.bytes[14..34]).unwrap();
    assert_eq!((ip.ttl, ip.tos, ip.checksum), (62, 0b11, ip.computed_checksum()));
}

#[rstest]
#[case::pod_to_peer(LOCAL_POD, PEER_POD, Ok([10, 5, 2, 0]))]
#[case::of_another_source([10, 9, 1, 7], PEER_POD, Err(Reason::ToStack))]
#[case::between_pods_of_the_host(LOCAL_POD, [10, 5, 1, 8], Err(Reason::ToStack))]
fn pods_packets_to_peers(
    #[case] from: [u8; 4],
    #[case] to: [u8; 4],
    #[case] expected: Result<[u8; 4], Reason>,
) {
    let packet = packet::Packet::read(&Packet::at(PORT, frame(Carried::Udp, from, to, 64, 0))).unwrap();
    assert_eq!(to_peer(&packet, &node(Bypass::Flow)), expected.map(Ip4::from_octets));
}

#[rstest]
#[case::peer_to_pod(PEER_POD, LOCAL_POD, Ok([10, 5, 2, 0]))]
#[case::to_the_host(PEER_POD, [192, 168, 0, 1], Err(Reason::ToStack))]
fn peers_packets_to_pods(
    #[case] from: [u8; 4],
    #[case] to: [u8; 4],
    #[case] expected: Result<[u8; 4], Reason>,
) {
    let packet = packet::Packet::read(&Packet::at(UNDERLAY, frame(Carried::Udp, from, to, 63, 0))).unwrap();
    assert_eq!(from_peer(&packet, &node(Bypass::Flow)), expected.map(Ip4::from_octets));
}
