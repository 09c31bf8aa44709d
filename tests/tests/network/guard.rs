//! What nobody may send through the tunnel reaches no pod, and is counted under its own reason.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::{Host, HostOptions, Place};
use flannel_tests::traffic::Endpoint;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::inject::{Injector, Inner};
use rstest::rstest;

use crate::{UDP, VXLAN, format_to, plan};

/// Packets sent of each kind.
pub(crate) const COUNT: usize = 100;
pub(crate) const PORT: u16 = 4711;

/// Somebody sends what is not theirs to send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forgery {
    /// A host without a lease, in a pod's name.
    NoLease,
    /// A peer, in the name of a pod of another host.
    InnerSource,
    /// A peer, in a pod's name, for an address that is not of the receiver's subnet.
    InnerDestination,
}

impl Forgery {
    pub(crate) fn send(self, cluster: &Cluster, stranger: &Endpoint) {
        let (peer, victim) = (&cluster.members[0].node, &cluster.members[1].node);
        let (pod, target) = (cluster.pod(0).unwrap().address, cluster.pod(1).unwrap().address);
        let sender = if matches!(self, Self::NoLease) { stranger } else { &peer.host.endpoint() };
        let source = if matches!(self, Self::InnerSource) { target } else { pod };
        let destination = match self {
            Self::InnerDestination => Ipv4Addr::new(10, 5, 255, 7),
            _ => target,
        };
        let injector = Injector::new(sender, &victim.host.endpoint(), format_to(cluster, 1)).unwrap();
        injector.send(&Inner { source, destination, port: PORT, ecn: 0 }, 0, COUNT).unwrap();
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::NoLease => "unknown_outer_source",
            Self::InnerSource => "inner_source_mismatch",
            Self::InnerDestination => "inner_dst_not_local",
        }
    }
}

/// A host without a lease, as soon as it reaches the second member.
pub(crate) fn stranger(cluster: &Cluster) -> Endpoint {
    let host = Host::new(&cluster.network, Place::Near, 9, HostOptions::default()).unwrap();
    check_reached(&[(host.endpoint(), cluster.members[1].node.host.endpoint())]).unwrap();
    host.endpoint()
}

/// How many of the packets arrive at an interface of `machine` within half a second.
pub(crate) fn arrivals(capture: &Capture) -> usize {
    let mut count = 0;
    let end = capture.find("last packet", Duration::from_millis(500), |frame| {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
        count += usize::from(udp.destination_port() == PORT);
        (count == COUNT).then_some(())
    });
    if end.is_ok() { COUNT } else { count }
}

#[rstest]
#[case::udp(UDP, "auto", "decap")]
#[case::udp_xdp(UDP, "xdp", "xdp")]
#[case::vxlan(VXLAN, "auto", "decap")]
#[case::vxlan_clsact(VXLAN, "clsact", "decap")]
#[case::vxlan_xdp(VXLAN, "xdp", "xdp")]
fn forgeries_are_dropped_and_counted(#[case] backend: &str, #[case] hook: &str, #[case] counted_at: &str) {
    let plan = plan(backend).with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    let stranger = stranger(&cluster);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let victim = &cluster.members[1].daemon;
    for forgery in [Forgery::NoLease, Forgery::InnerSource, Forgery::InnerDestination] {
        let before = victim.count(counted_at, forgery.reason()).unwrap();
        let pod = Capture::start(&cluster.pod(1).unwrap().namespace, "eth0").unwrap();
        forgery.send(&cluster, &stranger);
        assert_eq!(arrivals(&pod), 0, "{forgery:?} reaches the pod");
        let counted = victim.count(counted_at, forgery.reason()).unwrap() - before;
        assert_eq!(counted, COUNT as u64, "{forgery:?} as {}", forgery.reason());
    }
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

#[rstest]
#[case::peer_takes_peers_at_their_word("peer", 0, COUNT)]
#[case::off_takes_everything("off", COUNT, COUNT)]
fn guard_has_levels(
    #[values(UDP, VXLAN)] backend: &str,
    #[case] guard: &str,
    #[case] of_strangers: usize,
    #[case] of_forging_peers: usize,
) {
    let cluster =
        Cluster::start(&plan(backend).with_flag(&format!("--guard={guard}")).with_flag("--pod-bypass=off"))
            .unwrap();
    let stranger = stranger(&cluster);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for (forgery, expected) in [(Forgery::NoLease, of_strangers), (Forgery::InnerSource, of_forging_peers)] {
        // The pod itself would not answer a packet in its own name; at its host's port it is seen.
        let pod = Capture::start(&cluster.members[1].node.host.namespace, "pod1").unwrap();
        forgery.send(&cluster, &stranger);
        assert_eq!(arrivals(&pod), expected, "{forgery:?}");
    }
}
