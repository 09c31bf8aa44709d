//! The rig's own measure: pods joined by routes alone, without any flannel.

use std::thread::sleep;
use std::time::Duration;

use super::capture::Capture;
use super::{Carriers, Endpoint, Ends, Ping, Stream, flood, latency, throughput, transfer};
use crate::cluster::Turn;
use crate::network::{Host, HostOptions, Network, Place, Pod, SubnetFile};
use crate::wait;

/// Two hosts, one on each segment, with a pod each.
struct Routed {
    hosts: [Host; 2],
    pods: [Pod; 2],
    _network: Network,
    _turn: Turn,
}

impl Routed {
    /// One at a time: a flood takes the machine's time, and other packets are lost.
    fn new() -> Self {
        let turn = Turn::take();
        let network = Network::new().unwrap();
        let host = |place, number| Host::new(&network, place, number, HostOptions::default()).unwrap();
        let hosts = [host(Place::Near, 1), host(Place::Far, 4)];
        let files = ["10.5.1.1/24", "10.5.4.1/24"].map(|bridge| {
            let text = format!(
                "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET={bridge}\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n"
            );
            text.parse::<SubnetFile>().unwrap()
        });
        let pods = [0, 1].map(|index| {
            let (host, file): (&Host, &SubnetFile) = (&hosts[index], &files[index]);
            host.add_bridge(file).unwrap();
            network.router().ip(&format!("route add {} via {}", file.subnet, host.address)).unwrap();
            Pod::new(host, file, 1).unwrap()
        });
        let routed = Self { hosts, pods, _network: network, _turn: turn };
        let (near, far) = routed.ends();
        // A switch takes up to a second to notice a new cable.
        wait::until("the pods to reach each other", Duration::from_secs(10), || {
            Ping::default().send(near, far)?.check()
        })
        .unwrap();
        routed
    }

    fn ends(&self) -> (&Endpoint, &Endpoint) {
        (&self.pods[0].endpoint, &self.pods[1].endpoint)
    }
}

#[test]
fn pings_say_how_far_and_how_large() {
    let routed = Routed::new();
    let (near, far) = routed.ends();
    let pong = Ping { count: 3, size: 1500, dont_fragment: true, ..Ping::default() }.send(near, far).unwrap();
    pong.check().unwrap();
    assert_eq!(pong.ttl, Some(61), "two hosts and the router");
    routed.hosts[1].namespace.ip("link set cni0 mtu 1400").unwrap();
    let pong = Ping { size: 1500, dont_fragment: true, ..Ping::default() }.send(near, far).unwrap();
    assert_eq!((pong.mtu, pong.received), (Some(1400), 0), "{pong:?}");
    routed.hosts[1].namespace.ip("link set eth0 down").unwrap();
    assert!(Ping::default().send(near, far).unwrap().check().is_err());
}

#[test]
fn tcp_is_measured() {
    let routed = Routed::new();
    let (near, far) = routed.ends();
    assert_eq!(transfer(near, far, 50_000_001).unwrap().bytes, 50_000_001);
    let time = Duration::from_millis(200);
    let through = throughput(near, far, 4, time, &Carriers::new(&[]).unwrap()).unwrap();
    assert!(through.rate() > 1e8, "{through:?}");
    assert!(through.cpu.senders > Duration::ZERO && through.cpu.receivers > Duration::ZERO, "{through:?}");
    assert!(through.cpu.total() < 8 * through.time, "{through:?}");
    for ends in [Ends::Together, Ends::Apart] {
        let latency = latency(near, far, time, ends).unwrap();
        assert!(latency.p50 <= latency.p99 && latency.p99 < Duration::from_millis(50), "{latency:?}");
    }
}

#[test]
fn flood_is_measured() {
    let routed = Routed::new();
    let (near, far) = routed.ends();
    let flooded = flood(near, far, Duration::from_millis(300), &Carriers::new(&[]).unwrap()).unwrap();
    assert!(flooded.rate() > 1e3 && flooded.sent >= flooded.received / 2, "{flooded:?}");
    assert!(flooded.cpu.senders > Duration::ZERO && (0.0..1.0).contains(&flooded.loss()), "{flooded:?}");
    routed.hosts[1].namespace.ip("link set eth0 down").unwrap();
    let nothing = flood(near, far, Duration::from_millis(50), &Carriers::new(&[]).unwrap()).unwrap_err();
    assert!(format!("{nothing:#}").contains("nothing of a flood"), "{nothing:#}");
}

#[test]
fn lost_datagrams_are_counted() {
    let routed = Routed::new();
    let (near, far) = routed.ends();
    let stream = Stream::start(near, far, 5000).unwrap();
    sleep(Duration::from_millis(400));
    let losses = stream.stop().unwrap();
    assert!(losses.sent > 1000 && losses.unexcused() == 0 && losses.duplicates == 0, "{losses:?}");

    let stream = Stream::start(near, far, 5000).unwrap();
    sleep(Duration::from_millis(200));
    routed.hosts[0].namespace.ip(&format!("route add blackhole {}", far.address)).unwrap();
    sleep(Duration::from_millis(200));
    routed.hosts[0].namespace.ip(&format!("route delete blackhole {}", far.address)).unwrap();
    sleep(Duration::from_millis(200));
    let losses = stream.stop().unwrap();
    assert!(losses.lost > 500 && losses.lost < losses.sent - 500, "{losses:?}");
    assert!(losses.longest_gap > Duration::from_millis(150), "{losses:?}");
}

#[test]
fn frames_are_seen_where_they_pass() {
    let routed = Routed::new();
    let (near, far) = routed.ends();
    let capture = Capture::start(&routed.hosts[1].namespace, "eth0").unwrap();
    Ping::default().send(near, far).unwrap().check().unwrap();
    let ttl = capture.find("echo request", Duration::from_secs(2), |frame| {
        let packet = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
        let net = packet.net?;
        let ip = net.ipv4_ref()?.header();
        (ip.source_addr() == near.address).then_some(ip.ttl())
    });
    assert_eq!(ttl.unwrap(), 62);
    let nothing = capture.find("frame of nobody", Duration::from_millis(100), |_| None::<()>).unwrap_err();
    assert!(nothing.to_string().starts_with("no frame of nobody among"), "{nothing}");
}
