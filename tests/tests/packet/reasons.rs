//! One packet for each reason: counted under it once, and under no other.

use flannel_common::maps::Guard;
use flannel_common::{Hook, Ip4, Reason};
use flannel_ebpf::frame::Encapsulation;
use rstest::rstest;

use crate::frames::{self, Inner, Outer, PEERS, STRANGER};
use crate::kernel::{Kernel, tc_action};

const LOCAL_POD: [u8; 4] = [10, 5, 1, 7];
const PEER_POD: [u8; 4] = [10, 5, 2, 9];
const OTHER_PEERS_POD: [u8; 4] = [10, 5, 3, 9];

fn good(encapsulation: Encapsulation) -> Outer {
    Outer::new(PEERS[0].1, frames::port(encapsulation), Inner::new(PEER_POD, LOCAL_POD))
}

fn assert_counted_once(kernel: &Kernel, hook: Hook, expected: Reason) {
    for reason in Reason::ALL {
        let packets = kernel.count(hook, *reason).packets;
        assert_eq!(packets, u64::from(*reason == expected), "{reason} at {hook}");
    }
}

#[rstest]
#[case::forwarded(Reason::Forwarded, |_: &mut Outer| {})]
#[case::peer_in_its_own_name(Reason::Forwarded, |outer: &mut Outer| outer.inner.source = PEERS[0].1)]
#[case::stranger_in_its_own_name(Reason::UnknownOuterSource, |outer: &mut Outer| {
    outer.source = STRANGER;
    outer.inner.source = STRANGER;
})]
#[case::unknown_outer_source(Reason::UnknownOuterSource, |outer: &mut Outer| outer.source = STRANGER)]
#[case::inner_source_of_another_peer(Reason::InnerSourceMismatch, |outer: &mut Outer| outer.inner.source = OTHER_PEERS_POD)]
#[case::inner_source_is_another_peer(Reason::InnerSourceMismatch, |outer: &mut Outer| outer.inner.source = PEERS[1].1)]
#[case::inner_source_of_nobody(Reason::InnerSourceMismatch, |outer: &mut Outer| outer.inner.source = [8, 8, 8, 8])]
#[case::inner_source_of_this_host(Reason::InnerSourceMismatch, |outer: &mut Outer| outer.inner.source = LOCAL_POD)]
#[case::inner_destination_elsewhere(Reason::InnerDestinationNotLocal, |outer: &mut Outer| outer.inner.destination = [192, 168, 77, 11])]
#[case::congestion_without_ecn(Reason::EcnIllegal, |outer: &mut Outer| outer.tos = 3)]
#[case::later_fragment(Reason::NotTunnel, |outer: &mut Outer| outer.fragment = 0x0002)]
#[case::other_port(Reason::NotTunnel, |outer: &mut Outer| outer.port = 53)]
#[case::other_host(Reason::NotTunnel, |outer: &mut Outer| outer.destination = STRANGER)]
fn arriving(
    #[case] reason: Reason,
    #[case] alter: fn(&mut Outer),
    #[values((Encapsulation::Udp, "udp_decap"), (Encapsulation::Vxlan, "vxlan_decap"))] program: (
        Encapsulation,
        &str,
    ),
) {
    let (encapsulation, program) = program;
    let kernel = Kernel::load(encapsulation, Guard::Strict, &[program]);
    let mut outer = good(encapsulation);
    alter(&mut outer);
    let answer = kernel.run(program, &outer.frame(encapsulation));
    assert_eq!(answer.action, tc_action(reason.verdict()));
    assert_counted_once(&kernel, Hook::Decap, reason);
}

#[rstest]
#[case::wrong_vni(Reason::NotOurVni, |outer: &mut Outer| outer.vni = 2)]
#[case::flag_clear(Reason::BadVxlanFlags, |outer: &mut Outer| outer.vxlan_flags = 0)]
#[case::reserved_bits_are_ignored(Reason::Forwarded, |outer: &mut Outer| outer.vxlan_flags = 0xff)]
#[case::other_vtep(Reason::BadInnerMac, |outer: &mut Outer| outer.inner.destination_mac = PEERS[1].2)]
fn arriving_by_vxlan(#[case] reason: Reason, #[case] alter: fn(&mut Outer)) {
    let kernel = Kernel::load(Encapsulation::Vxlan, Guard::Strict, &["vxlan_decap"]);
    let mut outer = good(Encapsulation::Vxlan);
    alter(&mut outer);
    let answer = kernel.run("vxlan_decap", &outer.frame(Encapsulation::Vxlan));
    assert_eq!(answer.action, tc_action(reason.verdict()));
    assert_counted_once(&kernel, Hook::Decap, reason);
}

/// Offsets of bytes in a VXLAN frame.
#[rstest]
#[case::inner_arp(Reason::InnerNotIpv4, 63, 0x06)]
#[case::inner_version_6(Reason::BadIpHeader, 64, 0x65)]
#[case::inner_header_too_short(Reason::BadIpHeader, 64, 0x44)]
#[case::outer_options(Reason::NotTunnel, 14, 0x46)]
#[case::outer_tcp(Reason::NotTunnel, 23, 6)]
#[case::outer_not_ip(Reason::NotTunnel, 13, 0x06)]
fn arriving_with_one_byte_altered(#[case] reason: Reason, #[case] offset: usize, #[case] byte: u8) {
    let kernel = Kernel::load(Encapsulation::Vxlan, Guard::Strict, &["vxlan_decap"]);
    let mut frame = good(Encapsulation::Vxlan).frame(Encapsulation::Vxlan);
    frame[offset] = byte;
    let answer = kernel.run("vxlan_decap", &frame);
    assert_eq!(answer.action, tc_action(reason.verdict()));
    assert_counted_once(&kernel, Hook::Decap, reason);
}

#[rstest]
#[case::too_short_for_vxlan("vxlan_decap", Encapsulation::Vxlan, 60)]
#[case::too_short_for_an_inner_header("udp_decap", Encapsulation::Udp, 50)]
fn arriving_truncated(#[case] program: &str, #[case] encapsulation: Encapsulation, #[case] len: usize) {
    let kernel = Kernel::load(encapsulation, Guard::Strict, &[program]);
    let mut frame = good(encapsulation).frame(encapsulation);
    frame.truncate(len);
    kernel.run(program, &frame);
    assert_counted_once(&kernel, Hook::Decap, Reason::Truncated);
}

#[rstest]
#[case::peer_guard_stranger(Guard::Peer, STRANGER, PEER_POD, Reason::UnknownOuterSource)]
#[case::peer_guard_any_inner_source(Guard::Peer, PEERS[1].1, PEER_POD, Reason::Forwarded)]
#[case::no_guard_stranger(Guard::Off, STRANGER, [8, 8, 8, 8], Reason::Forwarded)]
fn guard_levels(
    #[case] guard: Guard,
    #[case] outer: [u8; 4],
    #[case] inner: [u8; 4],
    #[case] reason: Reason,
) {
    let kernel = Kernel::load(Encapsulation::Vxlan, guard, &["vxlan_decap"]);
    let packet = Outer::new(outer, 8472, Inner::new(inner, LOCAL_POD));
    kernel.run("vxlan_decap", &packet.frame(Encapsulation::Vxlan));
    assert_counted_once(&kernel, Hook::Decap, reason);
}

#[rstest]
#[case::udp(Encapsulation::Udp, "udp_decap", Guard::Off, PEERS[0].1, Reason::Fragment)]
#[case::vxlan(Encapsulation::Vxlan, "vxlan_decap", Guard::Strict, PEERS[0].1, Reason::Reassemble)]
#[case::vxlan_from_a_stranger(
    Encapsulation::Vxlan,
    "vxlan_decap",
    Guard::Strict,
    STRANGER,
    Reason::UnknownOuterSource
)]
#[case::vxlan_from_another_peer(Encapsulation::Vxlan, "vxlan_decap", Guard::Strict, PEERS[1].1, Reason::InnerSourceMismatch)]
#[case::vxlan_no_guard(Encapsulation::Vxlan, "vxlan_decap", Guard::Off, STRANGER, Reason::Reassemble)]
fn a_first_fragment(
    #[case] encapsulation: Encapsulation,
    #[case] program: &str,
    #[case] guard: Guard,
    #[case] source: [u8; 4],
    #[case] reason: Reason,
) {
    let kernel = Kernel::load(encapsulation, guard, &[program]);
    let packet = Outer { fragment: 0x2000, source, ..good(encapsulation) }.frame(encapsulation);
    let answer = kernel.run(program, &packet);
    assert_eq!((answer.action, answer.frame), (tc_action(reason.verdict()), packet));
    assert_counted_once(&kernel, Hook::Decap, reason);
}

#[test]
fn a_first_fragment_without_all_headers_is_dropped() {
    let kernel = Kernel::load(Encapsulation::Vxlan, Guard::Strict, &["vxlan_decap"]);
    let packet = Outer { fragment: 0x2000, ..good(Encapsulation::Vxlan) }.frame(Encapsulation::Vxlan);
    kernel.run("vxlan_decap", &packet[..83]);
    assert_counted_once(&kernel, Hook::Decap, Reason::Truncated);
}

#[rstest]
#[case::no_peer_by_udp("udp_encap", Encapsulation::Udp, [10, 5, 200, 1], Reason::NoPeer)]
#[case::no_peer_by_vxlan("vxlan_encap", Encapsulation::Vxlan, [10, 5, 200, 1], Reason::ForeignPeer)]
#[case::peer_by_udp("udp_encap", Encapsulation::Udp, PEER_POD, Reason::Forwarded)]
#[case::peer_by_vxlan("vxlan_encap", Encapsulation::Vxlan, PEER_POD, Reason::Forwarded)]
fn leaving(
    #[case] program: &str,
    #[case] encapsulation: Encapsulation,
    #[case] destination: [u8; 4],
    #[case] reason: Reason,
) {
    let kernel = Kernel::load(encapsulation, Guard::Strict, &[program]);
    let answer = kernel.run(program, &Inner::new(LOCAL_POD, destination).frame());
    assert_eq!(answer.action, tc_action(reason.verdict()));
    assert_counted_once(&kernel, Hook::Encap, reason);
}

/// A stock daemon's datagrams come from a socket, which computes a checksum; the programs' have none.
#[rstest]
#[case::strict(Guard::Strict)]
#[case::by_peer(Guard::Peer)]
#[case::off(Guard::Off)]
fn what_arrives_tells_how_to_send(#[case] guard: Guard) {
    let programs = ["udp_decap", "udp_xdp", "udp_encap", "udp_segmented"];
    let kernel = Kernel::load(Encapsulation::Udp, guard, &programs);
    let leaving = Inner::new(LOCAL_POD, PEER_POD).frame();
    let peer = Ip4::from_octets(PEERS[0].0);
    let with_checksum = |checksum: [u8; 2]| {
        let mut frame = good(Encapsulation::Udp).frame(Encapsulation::Udp);
        frame[40..42].copy_from_slice(&checksum);
        frame
    };
    let (of_socket, of_programs) = (with_checksum([0x12, 0x34]), with_checksum([0, 0]));

    for decapsulate in ["udp_decap", "udp_xdp"] {
        kernel.run(decapsulate, &of_socket);
        assert!(!kernel.accepts_gso(peer), "{decapsulate}");
        let before = kernel.count(Hook::Encap, Reason::ToSegment).packets;
        let answer = kernel.run("udp_encap", &leaving);
        assert_eq!(answer.frame, leaving, "it goes into the segmenter as it is");
        assert_eq!(kernel.count(Hook::Encap, Reason::ToSegment).packets, before + 1);

        kernel.run(decapsulate, &of_programs);
        assert!(kernel.accepts_gso(peer), "{decapsulate}");
        assert_ne!(kernel.run("udp_encap", &leaving).frame, leaving);
    }
    kernel.run("udp_decap", &of_socket);
    let answer = kernel.run("udp_segmented", &leaving);
    assert_eq!(answer.action, tc_action(Reason::Forwarded.verdict()));
    assert_eq!(answer.frame.len(), leaving.len() + 28);
    assert_counted_once(&kernel, Hook::Segmented, Reason::Forwarded);
}

#[test]
fn a_stranger_tells_nothing_of_a_peer() {
    let kernel = Kernel::load(Encapsulation::Udp, Guard::Off, &["udp_decap"]);
    let of_socket = Outer { source: STRANGER, ..good(Encapsulation::Udp) };
    kernel.run("udp_decap", &of_socket.frame(Encapsulation::Udp));
    assert_counted_once(&kernel, Hook::Decap, Reason::Forwarded);
    assert!(kernel.accepts_gso(Ip4::from_octets(PEERS[0].0)));
}

#[test]
fn leaving_other_than_ipv4() {
    let kernel = Kernel::load(Encapsulation::Vxlan, Guard::Strict, &["vxlan_encap"]);
    let mut frame = Inner::new(LOCAL_POD, PEER_POD).frame();
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    kernel.run("vxlan_encap", &frame);
    assert_counted_once(&kernel, Hook::Encap, Reason::NotIpv4);
}

#[rstest]
#[case::guarded(Guard::Strict, Reason::NotGuarded)]
#[case::by_peer(Guard::Peer, Reason::NotGuarded)]
#[case::off(Guard::Off, Reason::NotDecapsulated)]
fn entering_by_the_device_past_our_programs(#[case] guard: Guard, #[case] reason: Reason) {
    let kernel = Kernel::load(Encapsulation::Vxlan, guard, &["vxlan_device"]);
    let answer = kernel.run("vxlan_device", &Inner::new(PEER_POD, LOCAL_POD).frame());
    assert_eq!(answer.action, tc_action(reason.verdict()));
    assert_counted_once(&kernel, Hook::Device, reason);
}
