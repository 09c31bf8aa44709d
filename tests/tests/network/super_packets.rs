//! Super-packets stay whole behind the tunnel, up the stack and over the bridge to the pod.

use flannel_tests::network::Offloads;
use flannel_tests::traffic::{Received, transfer};
use rstest::rstest;

use crate::bypass::start_served;
use crate::{HOST_GW, UDP, VXLAN};

/// Bytes of a file.
const FILE: u64 = 50_000_000;
/// Longer than any packet on the wire.
const WHOLE: std::ops::RangeInclusive<u64> = 5_000..=u64::MAX;
/// As on the wire.
const CUT: std::ops::RangeInclusive<u64> = 1_000..=1_514;

#[rstest]
#[case::vxlan(VXLAN, "auto", "off", Offloads::All, WHOLE)]
#[case::vxlan_on_a_card(VXLAN, "auto", "off", Offloads::Receive, WHOLE)]
#[case::vxlan_clsact_on_a_card(VXLAN, "clsact", "off", Offloads::Receive, WHOLE)]
#[case::vxlan_xdp_on_a_card(VXLAN, "xdp", "off", Offloads::Receive, WHOLE)]
#[case::vxlan_bypass(VXLAN, "auto", "auto", Offloads::All, WHOLE)]
#[case::vxlan_bypass_on_a_card(VXLAN, "auto", "auto", Offloads::Receive, WHOLE)]
#[case::udp(UDP, "auto", "off", Offloads::All, WHOLE)]
#[case::udp_xdp_on_a_card(UDP, "xdp", "off", Offloads::Receive, WHOLE)]
#[case::udp_bypass(UDP, "auto", "auto", Offloads::All, WHOLE)]
#[case::host_gw_on_a_card(HOST_GW, "auto", "auto", Offloads::Receive, WHOLE)]
// Receive offload does not know this format, and there is nothing to keep whole.
#[case::udp_on_a_card(UDP, "auto", "off", Offloads::Receive, CUT)]
fn a_file_reaches_the_pod_in_super_packets(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] bypass: &str,
    #[case] offloads: Offloads,
    #[case] lengths: std::ops::RangeInclusive<u64>,
) {
    let cluster = start_served(backend, hook, bypass, offloads);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let receiver = &cluster.members[1].daemon;
    let at_bridge = || {
        let answer = receiver.ctl_json("counters --all").unwrap();
        let counters = answer["counters"].as_array().unwrap();
        let counter = counters.iter().find(|one| one["hook"] == "bridge" && one["reason"] == "forwarded");
        counter.unwrap()["bytes"].as_u64().unwrap()
    };
    let (before, bridged) = (Received::by(&to.namespace, "eth0").unwrap(), at_bridge());
    transfer(from, to, FILE).unwrap();
    let mean = Received::by(&to.namespace, "eth0").unwrap().mean_since(&before);
    assert!(lengths.contains(&mean), "mean length {mean}");
    let bridged = at_bridge() - bridged;
    let by_our_bridge = backend != HOST_GW && bypass == "off" && lengths == WHOLE;
    assert_eq!(
        bridged > FILE * 8 / 10,
        by_our_bridge,
        "{bridged} of {FILE} bytes went over the bridge whole"
    );
    println!("{backend} {hook} {bypass} {offloads:?} {mean}");
}
