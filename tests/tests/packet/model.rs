//! The packet logic over byte vectors.

use etherparse::{SlicedPacket, TransportSlice};
use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::wire::{EthernetHeader, Ipv4Header};
use flannel_common::{Ip4, Reason};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::model::Table;
use flannel_ebpf::udp::State;
use flannel_ebpf::{udp, vxlan};
use proptest::prelude::*;
use rstest::rstest;
use zerocopy::FromBytes as _;

use crate::frames::{self, DEVICE_MAC, Inner, LOCAL, PEERS, any_incoming, any_outgoing};

const BOTH: [Encapsulation; 2] = [Encapsulation::Udp, Encapsulation::Vxlan];

pub fn encapsulate(encapsulation: Encapsulation, frame: &mut Vec<u8>, guard: Guard) -> Result<Ip4, Reason> {
    encapsulate_at(&frames::node(encapsulation, guard), encapsulation, frame)
}

/// As another host does it.
pub fn encapsulate_at(node: &Node, encapsulation: Encapsulation, frame: &mut Vec<u8>) -> Result<Ip4, Reason> {
    let sent = match encapsulation {
        Encapsulation::Udp => udp::encapsulate(frame, &frames::table(), node, State::AsSent, |_, _| Ok(())),
        Encapsulation::Vxlan => vxlan::encapsulate(frame, &frames::table(), node, |_, _| Ok(())),
    };
    sent.map(|(subnet, _)| subnet)
}

pub fn decapsulate(encapsulation: Encapsulation, frame: &mut Vec<u8>, guard: Guard) -> Result<Ip4, Reason> {
    let node = frames::node(encapsulation, guard);
    match encapsulation {
        Encapsulation::Udp => udp::decapsulate(frame, &frames::table(), &node),
        Encapsulation::Vxlan => vxlan::decapsulate(frame, &frames::table(), &node),
    }
}

/// Stock flannel reads datagrams from a socket, which shows no mark that a router has set on the way.
#[test]
fn packets_to_a_stock_host_of_the_udp_backend_are_not_to_be_marked() {
    let node = frames::node(Encapsulation::Udp, Guard::Strict);
    for (whole, ecn) in [(0, [0, 0, 0, 0]), (u32::MAX, [0, 1, 2, 2])] {
        let mut table = Table::default();
        table.insert(Ip4::from_octets(PEERS[0].0), Peer { whole, ..frames::peers()[0].1 });
        let outer = [0, 1, 2, 3].map(|inner| {
            let mut frame = Inner { tos: 0xb8 | inner, ..Inner::new([10, 5, 1, 7], [10, 5, 2, 9]) }.frame();
            udp::encapsulate(&mut frame, &table, &node, State::Segmented, |_, _| Ok(())).unwrap();
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            packet.net.as_ref().and_then(|net| net.ipv4_ref()).unwrap().header().ecn().value()
        });
        assert_eq!(outer, ecn, "whole: {whole}");
    }
}

#[rstest]
#[case::udp(Encapsulation::Udp, 28)]
#[case::vxlan(Encapsulation::Vxlan, 50)]
fn outer_headers_are_what_the_wire_format_says(
    #[case] encapsulation: Encapsulation,
    #[case] overhead: usize,
) {
    let inner = Inner { tos: 0xb8 | 2, id: 0x1234, ..Inner::new([10, 5, 1, 7], [10, 5, 2, 9]) };
    let plain = inner.frame();
    let mut frame = plain.clone();
    assert_eq!(encapsulate(encapsulation, &mut frame, Guard::Strict), Ok(Ip4::from_octets(PEERS[0].0)));
    assert_eq!(frame.len(), plain.len() + overhead);

    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let ip = packet.net.as_ref().and_then(|net| net.ipv4_ref()).unwrap().header().to_header();
    assert_eq!((ip.source, ip.destination), (LOCAL, PEERS[0].1));
    assert_eq!((ip.time_to_live, ip.dscp.value(), ip.ecn.value()), (64, 0, 2), "TTL, DSCP, ECN");
    assert_eq!(ip.identification, 0x1234);
    assert!(!ip.dont_fragment && !ip.more_fragments);
    assert_eq!(usize::from(ip.total_len), frame.len() - 14);
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    let Some(TransportSlice::Udp(outer)) = packet.transport else { panic!("no UDP in {packet:?}") };
    assert_eq!(outer.checksum(), 0);
    assert_eq!(usize::from(outer.length()), frame.len() - 34);

    match encapsulation {
        Encapsulation::Udp => {
            assert_eq!((outer.source_port(), outer.destination_port()), (8285, 8285));
            assert_eq!(outer.payload(), &plain[14..]);
        }
        Encapsulation::Vxlan => {
            assert!(outer.source_port() >= 49152);
            assert_eq!(outer.destination_port(), 8472);
            assert_eq!(outer.payload()[..8], [8, 0, 0, 0, 0, 0, 1, 0]);
            assert_eq!(outer.payload()[8..14], PEERS[0].2, "the peer's VTEP");
            assert_eq!(outer.payload()[14..], plain[6..]);
        }
    }
}

#[test]
fn a_super_packet_longer_than_the_length_field_says_zero() {
    let inner = Inner { payload: 60_000, ..Inner::new([10, 5, 1, 7], [10, 5, 2, 9]) };
    let mut frame = inner.frame();
    frame.extend(vec![0; 9000]);
    encapsulate(Encapsulation::Vxlan, &mut frame, Guard::Strict).unwrap();
    assert_eq!(Ipv4Header::read_from_bytes(&frame[14..34]).unwrap().total_len.get(), 0);
}

#[rstest]
fn every_frame_cut_at_every_byte_is_answered(
    #[values(Encapsulation::Udp, Encapsulation::Vxlan)] encapsulation: Encapsulation,
) {
    let outer =
        frames::Outer::new(PEERS[0].1, frames::port(encapsulation), Inner::new([10, 5, 2, 9], [10, 5, 1, 7]));
    let whole = outer.frame(encapsulation);
    let headers = match encapsulation {
        Encapsulation::Udp => 62,
        Encapsulation::Vxlan => 84,
    };
    for len in 0..=whole.len() {
        let mut frame = whole[..len].to_vec();
        let expected = match len {
            0..42 => Err(Reason::NotTunnel),
            len if len < headers => Err(Reason::Truncated),
            _ => Ok(Ip4::from_octets(PEERS[0].0)),
        };
        assert_eq!(decapsulate(encapsulation, &mut frame, Guard::Strict), expected, "cut at {len}");
    }
    let inner = Inner::new([10, 5, 1, 7], [10, 5, 2, 9]).frame();
    for len in 0..34 {
        let mut frame = inner[..len].to_vec();
        assert_eq!(
            encapsulate(encapsulation, &mut frame, Guard::Strict),
            Err(Reason::Truncated),
            "cut at {len}"
        );
    }
}

proptest! {
    #[test]
    fn what_is_encapsulated_arrives_unchanged(payload in 0usize..1400, id: u16, tos in 0u8..64) {
        for encapsulation in BOTH {
            // ECN "not capable" is carried through unchanged; the other cells have their own test.
            let inner = Inner { payload, id, tos: tos << 2, ..Inner::new([10, 5, 1, 7], [10, 5, 2, 9]) };
            let plain = inner.frame();
            let mut frame = plain.clone();
            encapsulate(encapsulation, &mut frame, Guard::Strict).unwrap();

            // The same packet, seen by the peer.
            let mut receiver = frames::node(encapsulation, Guard::Off);
            receiver.local_ip = Ip4::from_octets(PEERS[0].1);
            receiver.device_mac = flannel_common::Mac(PEERS[0].2);
            let arrived = match encapsulation {
                Encapsulation::Udp => udp::decapsulate(&mut frame, &frames::table(), &receiver),
                Encapsulation::Vxlan => vxlan::decapsulate(&mut frame, &frames::table(), &receiver),
            };
            prop_assert_eq!(arrived, Ok(Ip4::from_octets([10, 5, 1, 0])));
            prop_assert_eq!(&frame[14..], &plain[14..]);
            prop_assert_eq!(frame[..6].to_vec(), PEERS[0].2.to_vec());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for encapsulation in BOTH {
            for guard in [Guard::Off, Guard::Peer, Guard::Strict] {
                let _ = encapsulate(encapsulation, &mut bytes.clone(), guard);
                let _ = decapsulate(encapsulation, &mut bytes.clone(), guard);
            }
        }
    }

    #[test]
    fn a_packet_that_is_not_forwarded_is_not_touched(
        outgoing in any_outgoing(),
        udp in any_incoming(Encapsulation::Udp),
        vxlan in any_incoming(Encapsulation::Vxlan),
    ) {
        for (encapsulation, incoming) in [(Encapsulation::Udp, udp), (Encapsulation::Vxlan, vxlan)] {
            let mut frame = outgoing.clone();
            if encapsulate(encapsulation, &mut frame, Guard::Strict).is_err() {
                prop_assert_eq!(&frame, &outgoing);
            }
            let mut frame = incoming.clone();
            if decapsulate(encapsulation, &mut frame, Guard::Strict).is_err() {
                prop_assert_eq!(&frame, &incoming);
            }
        }
    }

    #[test]
    fn a_strict_guard_lets_in_only_what_a_peer_owns(frame in any_incoming(Encapsulation::Vxlan)) {
        let mut arrived = frame.clone();
        if decapsulate(Encapsulation::Vxlan, &mut arrived, Guard::Strict).is_ok() {
            let outer = Ipv4Header::read_from_bytes(&frame[14..34]).unwrap();
            let inner = Ipv4Header::read_from_bytes(&arrived[14..34]).unwrap();
            let owner = PEERS.iter().find(|(subnet, ..)| inner.source[..3] == subnet[..3]).unwrap();
            prop_assert_eq!(outer.source, owner.1);
            prop_assert_eq!(&inner.destination[..3], &[10, 5, 1][..]);
            let ethernet = EthernetHeader::read_from_bytes(&arrived[..14]).unwrap();
            prop_assert_eq!(ethernet.destination.0, DEVICE_MAC);
            prop_assert_eq!(inner.computed_checksum() == inner.checksum,
                { let was = Ipv4Header::read_from_bytes(&frame[64..84]).unwrap(); was.computed_checksum() == was.checksum },
                "a good checksum stays good and a bad one bad");
        }
    }
}
