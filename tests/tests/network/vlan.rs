//! Frames with a VLAN tag at an underlay that is the trunk.

use etherparse::{EtherType, PacketBuilder, SingleVlanHeader, VlanHeader, VlanId, VlanPcp};
use flannel_common::Mac;
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::Host;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::inject::{FrameInjector, Inner};
use rstest::rstest;

use crate::guard::{COUNT, PORT, arrivals};
use crate::{UDP, VXLAN, cluster, format_to};

/// The Ethernet address of a host's card.
fn card(host: &Host) -> [u8; 6] {
    let link = host.namespace.ip("-brief link show eth0").unwrap();
    link.split_whitespace().nth(2).unwrap().parse::<Mac>().unwrap().0
}

/// A tunnel packet of the first member's pod to the second's, in that VLAN.
fn tagged(cluster: &Cluster, vlan: u16) -> Vec<u8> {
    let [sender, receiver] = [0, 1].map(|member| &cluster.members[member].node.host);
    let [source, destination] = [0, 1].map(|member| cluster.pod(member).unwrap().address);
    let format = format_to(cluster, 1);
    let payload = Inner { source, destination, port: PORT, ecn: 0 }.wrapped(format).unwrap();
    let tag = SingleVlanHeader {
        pcp: VlanPcp::try_new(5).unwrap(),
        drop_eligible_indicator: false,
        vlan_id: VlanId::try_new(vlan).unwrap(),
        ether_type: EtherType::IPV4,
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(card(sender), card(receiver))
        .vlan(VlanHeader::Single(tag))
        .ipv4(sender.address.octets(), receiver.address.octets(), 64)
        .udp(format.port(), format.port())
        .write(&mut frame, &payload)
        .unwrap();
    frame
}

/// A tag that names no VLAN has only a priority (IEEE 802.1Q), and the frame is one of the trunk itself.
#[rstest]
#[case::of_a_vlan(5, 0)]
#[case::with_a_priority(0, COUNT)]
fn frames_of_a_vlan_are_not_of_the_trunk(
    #[values(UDP, VXLAN)] backend: &str,
    #[values("auto", "clsact")] hook: &str,
    #[case] vlan: u16,
    #[case] expected: usize,
) {
    let cluster = cluster(backend, hook);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let pod = Capture::start(&cluster.pod(1).unwrap().namespace, "eth0").unwrap();
    let injector = FrameInjector::new(&cluster.members[0].node.host.namespace, "eth0").unwrap();
    let frame = tagged(&cluster, vlan);
    let daemon = &cluster.members[1].daemon;
    let before = daemon.count("decap", "not_tunnel").unwrap();
    injector.send(&frame, COUNT).unwrap();
    assert_eq!(arrivals(&pod), expected);
    let others = daemon.count("decap", "not_tunnel").unwrap() - before;
    assert!(others >= (COUNT - expected) as u64, "{others} were seen and left alone");
}
