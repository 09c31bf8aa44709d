//! Files arrive as they were sent, and no kernel counts a wrong checksum.

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::network::{HostOptions, Offloads, Place};
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::{ChecksumErrors, Endpoint, transfer};
use rstest::rstest;

use crate::{DIRECT, HOST_GW, STRICT, UDP, VXLAN, plan};

const GIGABYTE: u64 = 1_000_000_000;
/// Bytes of a smaller file, whose frames a capture has room for.
const SMALL: u64 = 10_000_000;

#[rstest]
#[case::udp(UDP, Place::Far)]
#[case::vxlan(VXLAN, Place::Far)]
#[case::direct_routing(DIRECT, Place::Near)]
#[case::host_gw(HOST_GW, Place::Near)]
fn gigabyte_arrives_whole(#[case] backend: &str, #[case] place: Place) {
    let cluster = Cluster::start(&Plan { places: vec![Place::Near, place], ..plan(backend) }).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let machines: Vec<Endpoint> = cluster.nodes().iter().map(|node| node.host.endpoint()).collect();
    let machines: Vec<&Endpoint> = machines.iter().collect();
    let before = ChecksumErrors::of(&machines).unwrap();
    let sent = transfer(cluster.pod(0).unwrap(), cluster.pod(1).unwrap(), GIGABYTE).unwrap();
    ChecksumErrors::of(&machines).unwrap().check_none_since(&before).unwrap();
    println!("{backend}: {:.2} Gbit/s", sent.rate() / 1e9);
}

#[rstest]
#[case::udp_on_a_wire(UDP, "auto", Offloads::None)]
#[case::udp_on_a_card(UDP, "clsact", Offloads::Receive)]
#[case::udp_xdp(UDP, "xdp", Offloads::All)]
#[case::udp_xdp_on_a_card(UDP, "xdp", Offloads::Receive)]
#[case::vxlan_on_a_wire(VXLAN, "auto", Offloads::None)]
#[case::vxlan_on_a_card(VXLAN, "clsact", Offloads::Receive)]
#[case::vxlan_xdp(VXLAN, "xdp", Offloads::All)]
#[case::vxlan_xdp_on_a_card(VXLAN, "xdp", Offloads::Receive)]
#[case::vxlan_xdp_generic(VXLAN, "xdp-generic", Offloads::All)]
#[case::udp_xdp_generic(UDP, "xdp-generic", Offloads::All)]
#[case::vxlan_xdp_generic_on_a_card(VXLAN, "xdp-generic", Offloads::Receive)]
#[case::udp_xdp_generic_on_a_wire(UDP, "xdp-generic", Offloads::None)]
fn file_arrives_whole_both_ways(#[case] backend: &str, #[case] hook: &str, #[case] offloads: Offloads) {
    let host = HostOptions { offloads, ..STRICT };
    let plan = Plan { host, ..plan(backend) }.with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for (from, to) in pod_pairs(&cluster.nodes()) {
        let wire = Capture::start(cluster.network.lan(), "h2").unwrap();
        transfer(&from, &to, SMALL).unwrap();
        if offloads != Offloads::All {
            check_short(&wire);
        }
    }
}

/// Fails if a frame was on the wire that no card would send.
fn check_short(wire: &Capture) {
    const LONGEST: usize = 1514;
    let (mut frames, mut longest) = (0, 0);
    wire.each(|frame| {
        frames += 1;
        longest = longest.max(frame.len());
    })
    .unwrap();
    assert!(longest <= LONGEST, "a frame of {longest} bytes was on the wire");
    assert!(frames > SMALL / LONGEST as u64, "{frames} frames were seen");
}
