//! No packet is counted twice or not at all.

use std::thread::sleep;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use flannel_common::maps::{COUNTERS, Count};
use flannel_common::{Hook, Reason};
use flannel_datapath::PinDir;
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::traffic::Stream;
use rstest::rstest;

use crate::{UDP, VXLAN, cluster};

/// Packets sent to and received from the only peer.
fn peer_counts(daemon: &Daemon) -> (u64, u64) {
    let peers = daemon.ctl_json("peers").unwrap();
    let peer = &peers["peers"][0];
    (peer["sent_packets"].as_u64().unwrap(), peer["received_packets"].as_u64().unwrap())
}

#[rstest]
#[case::udp(UDP, "auto", "decap")]
#[case::udp_xdp(UDP, "xdp", "xdp")]
#[case::vxlan(VXLAN, "auto", "decap")]
#[case::vxlan_xdp(VXLAN, "xdp", "xdp")]
#[case::udp_xdp_generic(UDP, "xdp-generic", "xdp")]
fn what_one_host_sends_the_other_receives(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] received_at: &str,
) {
    let cluster = cluster(backend, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    let [first, second] = [0, 1].map(|member| &cluster.members[member].daemon);
    let counted = |daemon: &Daemon, hook, reason| daemon.count(hook, reason).unwrap();
    // A host of the UDP backend does not know yet, with the first packet, that the other one takes packets whole.
    let sent_by = |daemon: &Daemon| {
        let hooks = [("encap", "forwarded"), ("segmented", "forwarded"), ("pod_out", "bypassed")];
        hooks.iter().map(|(hook, reason)| counted(daemon, hook, reason)).sum::<u64>()
    };
    let received_by = |daemon: &Daemon| {
        // XDP counts a packet before its path is known.
        let bypassed = if received_at == "xdp" { 0 } else { counted(daemon, "decap", "bypassed") };
        counted(daemon, received_at, "forwarded") + bypassed
    };
    let sent_before = sent_by(first);
    let (from, to) = &pairs[0];
    let stream = Stream::start(from, to, 5000).unwrap();
    sleep(Duration::from_millis(500));
    let losses = stream.stop().unwrap();
    assert_eq!(losses.lost, 0, "{losses:?}");

    for (sender, receiver) in [(first, second), (second, first)] {
        assert_eq!(sent_by(sender), received_by(receiver));
        assert_eq!(peer_counts(sender).0, peer_counts(receiver).1);
        assert_eq!(peer_counts(sender).0, sent_by(sender));
        let segmented = counted(sender, "segmented", "forwarded");
        let to_segment = counted(sender, "encap", "to_segment") + counted(sender, "pod_out", "to_segment");
        assert_eq!(segmented, to_segment);
        assert!(segmented < 10, "{segmented} went through the segmenter though the peer has programs");
    }
    // The stream, and the probes before it.
    let sent = sent_by(first) - sent_before;
    assert!((losses.sent..losses.sent + 10).contains(&sent), "{sent} counted of {losses:?}");
    for daemon in [first, second] {
        let counters = daemon.ctl_json("counters").unwrap();
        let dropped: Vec<_> = counters["counters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|count| count["verdict"] == "drop")
            .collect();
        assert!(dropped.is_empty(), "{dropped:?}");
    }
    if backend == VXLAN {
        let to_the_stack = if received_at == "xdp" { "handed_over" } else { "forwarded" };
        assert_eq!(counted(second, "device", "guarded"), counted(second, "decap", to_the_stack));
    }
}

/// What every test of this suite ends with would find it.
#[test]
fn packet_counted_twice_is_found() {
    let mut cluster = cluster(VXLAN, "auto");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let pin = PinDir::maps(cluster.members[0].daemon.pin_dir()).join(COUNTERS);
    let map = Map::from_map_data(MapData::from_pin(&pin).unwrap()).unwrap();
    let mut counters: PerCpuArray<MapData, Count> = map.try_into().unwrap();
    let slot = Hook::Decap.slot(Reason::Truncated);
    let mut counts = counters.get(&slot, 0).unwrap().to_vec();
    counts[0].packets += 1;
    counters.set(slot, PerCpuValues::try_from(counts).unwrap(), 0).unwrap();
    let error = format!("{:#}", cluster.settle().unwrap_err());
    assert!(error.contains("on h1") && error.contains("at decap programs ran"), "{error}");
}
