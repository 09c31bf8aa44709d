//! Congestion notification through the tunnel (RFC 6040), as the kernel's vxlan device does it.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::network::Offloads;
use flannel_tests::traffic::Endpoint;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::traffic::inject::{Injector, Inner, SOURCE_PORT};
use nix::sys::socket::{setsockopt, sockopt};
use rstest::rstest;

use crate::bypass::start_served;
use crate::{UDP, VXLAN, cluster, format_to};

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;
const ALL: [u8; 4] = [NOT_ECT, ECT_1, ECT_0, CE];

/// The inner field after decapsulation by the inner and then the outer one, both in the order of their
/// numbers; none where the packet is dropped (RFC 6040, figure 4).
const DECAPSULATED: [[Option<u8>; 4]; 4] = [
    [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
    [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
    [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)],
    [Some(CE), Some(CE), Some(CE), Some(CE)],
];

/// What arrives at `pod` when `source` of the first member sends each combination.
fn decapsulated(cluster: &Cluster, source: &Endpoint, pod: &Endpoint) -> [[Option<u8>; 4]; 4] {
    let (first, second) = (&cluster.members[0].node, &cluster.members[1].node);
    let injector =
        Injector::new(&first.host.endpoint(), &second.host.endpoint(), format_to(cluster, 1)).unwrap();
    let capture = Capture::start(&pod.namespace, "eth0").unwrap();
    ALL.map(|inner| {
        ALL.map(|outer| {
            let port = 5000 + u16::from(inner) * 4 + u16::from(outer);
            let packet = Inner { source: source.address, destination: pod.address, port, ecn: inner };
            injector.send(&packet, outer, 1).unwrap();
            let arrived = capture.find("datagram", Duration::from_millis(400), |frame| ecn_of(frame, port));
            arrived.ok()
        })
    })
}

/// The ECN field of a datagram to `port`.
fn ecn_of(frame: &[u8], port: u16) -> Option<u8> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
        return None;
    };
    (udp.destination_port() == port).then(|| ip.header().ecn().value())
}

#[rstest]
#[case::udp(UDP, "auto", "decap")]
#[case::udp_xdp(UDP, "xdp", "xdp")]
#[case::vxlan(VXLAN, "auto", "decap")]
#[case::vxlan_clsact(VXLAN, "clsact", "decap")]
#[case::vxlan_xdp(VXLAN, "xdp", "xdp")]
#[case::udp_xdp_generic(UDP, "xdp-generic", "xdp")]
fn sixteen_cells_of_decapsulation(#[case] backend: &str, #[case] hook: &str, #[case] counted_at: &str) {
    let cluster = cluster(backend, hook);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let found = decapsulated(&cluster, cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    assert_eq!(found, DECAPSULATED);
    assert_eq!(cluster.members[1].daemon.count(counted_at, "ecn_illegal").unwrap(), 1);
}

#[rstest]
#[case::udp(UDP, 8285)]
#[case::vxlan(VXLAN, 8472)]
fn outer_field_follows_the_inner_one(#[case] backend: &str, #[case] port: u16) {
    let cluster = cluster(backend, "auto");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let source = cluster.members[0].node.host.address;
    let socket = from.namespace.within(|| Ok(UdpSocket::bind((from.address, 0))?)).unwrap();
    for (inner, expected) in [(NOT_ECT, NOT_ECT), (ECT_1, ECT_1), (ECT_0, ECT_0), (CE, ECT_0)] {
        let wire = Capture::start(cluster.network.lan(), "h2").unwrap();
        // The class of expedited forwarding must not show outside.
        setsockopt(&socket, sockopt::Ipv4Tos, &i32::from(0xb8 | inner)).unwrap();
        socket.send_to(b"x", (to.address, 9)).unwrap();
        let outer = wire.find("tunnel packet", Duration::from_secs(2), |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok()?;
            let Some(NetSlice::Ipv4(ip)) = &packet.net else { return None };
            let header = ip.header();
            let is_ours = header.source_addr() == source && ecn_of(frame, port).is_some();
            is_ours.then(|| (header.ecn().value(), header.dcp().value()))
        });
        assert_eq!(outer.unwrap(), (expected, 0), "inner {inner:02b}");
    }
}

/// A flow that is running, and bypasses the stack.
struct Running {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    _receiver: UdpSocket,
}

impl Running {
    fn start(from: &Endpoint, to: &Endpoint, port: u16) -> Self {
        let receiver = to.namespace.within(|| Ok(UdpSocket::bind((to.address, port))?)).unwrap();
        let socket = from.namespace.within(|| Ok(UdpSocket::bind((from.address, SOURCE_PORT))?)).unwrap();
        let (stop, target) = (Arc::new(AtomicBool::new(false)), receiver.local_addr().unwrap());
        let told = stop.clone();
        let sender = spawn(move || {
            while !told.load(Ordering::Relaxed) {
                socket.send_to(b"running", target).unwrap();
                sleep(Duration::from_millis(1));
            }
        });
        Self { stop, sender: Some(sender), _receiver: receiver }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.sender.take().map(JoinHandle::join));
    }
}

/// Packets of each combination belong to one short flow.
#[rstest]
#[case::udp(UDP, "auto")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_xdp(VXLAN, "xdp")]
fn sixteen_cells_on_the_bypass(#[case] backend: &str, #[case] hook: &str) {
    const PORT: u16 = 5000;
    const EACH: usize = 20;
    let cluster = start_served(backend, hook, "auto", Offloads::All);
    let (source, pod) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let (first, second) = (&cluster.members[0].node, &cluster.members[1].node);
    let injector =
        Injector::new(&first.host.endpoint(), &second.host.endpoint(), format_to(&cluster, 1)).unwrap();
    let _running = Running::start(source, pod, PORT);
    sleep(Duration::from_millis(200));
    let count = |reason| cluster.members[1].daemon.count("decap", reason).unwrap();
    let taken = || (count("bypassed"), count("forwarded") + count("handed_over"));
    let before = taken();
    for (inner, row) in ALL.into_iter().zip(DECAPSULATED) {
        for (outer, expected) in ALL.into_iter().zip(row) {
            let capture = Capture::start(&pod.namespace, "eth0").unwrap();
            let packet = Inner { source: source.address, destination: pod.address, port: PORT, ecn: inner };
            injector.send(&packet, outer, EACH).unwrap();
            let (mut found, mut arrived) = (BTreeSet::new(), 0);
            let wanted = if expected.is_some() { EACH } else { 1 };
            let all = capture.find("injected packets", Duration::from_millis(300), |frame| {
                // Without payload, unlike those of the flow itself.
                if frame.get(38..40) == Some(&[0, 8]) {
                    found.extend(ecn_of(frame, PORT));
                    arrived += 1;
                }
                (arrived == wanted).then_some(())
            });
            let cell = format!("inner {inner:02b}, outer {outer:02b}: {arrived} arrived");
            assert_eq!(all.is_ok(), expected.is_some(), "{cell}");
            assert_eq!(found, expected.into_iter().collect(), "{cell}");
        }
    }
    let after = taken();
    let (bypassed, not) = (after.0 - before.0, after.1 - before.1);
    assert!(bypassed > 4 * not, "{bypassed} packets bypassed the stack, {not} did not");
}
