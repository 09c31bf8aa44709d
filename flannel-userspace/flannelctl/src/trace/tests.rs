use clap::Parser;
use etherparse::PacketBuilder;
use flannel_common::maps::Node;
use flannel_common::trace::{Event, SNAP};
use flannel_common::{Hook, Ip4, Mac, Reason};
use flannel_datapath::PeerEntry;

use super::{Arguments, Host, Seen};
use crate::output::Report as _;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let words = std::iter::once("trace").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.arguments)
}

fn host() -> Host {
    let node = Node {
        subnet: Ip4::from_octets([10, 5, 1, 0]),
        netmask: Ip4::netmask(24),
        vni: 1,
        port: 8472,
        ..Node::UNSET
    };
    let peer = |last| PeerEntry {
        public_ip: [192, 168, 77, last].into(),
        vtep_mac: Mac([2, 0, 0, 0, 0, last]),
        direct: false,
        format: Some((1, 8472)),
    };
    Host { node, peers: vec![([10, 5, 2, 0].into(), peer(12)), ([10, 5, 3, 0].into(), peer(13))] }
}

fn event(hook: Hook, reason: Reason, segments: u32) -> Event {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 5, 1, 2], [10, 5, 3, 9], 63)
        .udp(4000, 53)
        .write(&mut frame, b"question")
        .unwrap();
    let mut bytes = [0; SNAP];
    bytes[..frame.len()].copy_from_slice(&frame);
    let len = u32::try_from(frame.len()).unwrap();
    let (hook, reason) = (hook as u32, reason.number());
    Event { at: 0, hook, reason, interface: u32::MAX, len, captured: len, segments, bytes }
}

#[test]
fn without_filters_everything_is_asked() {
    let filter = parse("").unwrap().filter();
    assert!(Reason::ALL.iter().all(|reason| filter.reasons >> reason.number() & 1 == 1));
    assert!(Hook::ALL.iter().all(|hook| filter.hooks >> *hook as u32 & 1 == 1));
    assert_eq!((filter.every, filter.arrivals), (1, 0));
}

#[test]
fn filters_are_the_kernels_where_it_can() {
    let filter = parse("--hook decap,xdp --verdict drop --every 10").unwrap().filter();
    assert_eq!(filter.hooks, 1 << Hook::Decap as u32 | 1 << Hook::Xdp as u32);
    assert_eq!(filter.reasons >> Reason::UnknownOuterSource.number() & 1, 1);
    assert_eq!(filter.reasons >> Reason::Forwarded.number() & 1, 0);
    assert_eq!(filter.every, 10);
    let filter = parse("--reason no_peer").unwrap().filter();
    assert_eq!(filter.reasons, 1 << Reason::NoPeer.number());
}

#[test]
fn what_there_is_not_is_named() {
    let error = |line| parse(line).unwrap_err().to_string();
    assert!(error("--hook nowhere").contains("encap"));
    assert!(error("--reason because").contains("counters --all"));
}

#[test]
fn a_packet_is_a_line() {
    let seen = Seen::of(&event(Hook::Encap, Reason::NoPeer, 0), &host());
    let text = seen.text();
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.parse::<f64>().is_ok(), "{time}");
    assert_eq!(
        rest,
        "encap interface 4294967295 drop no_peer 10.5.1.2:4000 > 10.5.3.9:53 udp 50 bytes peer 192.168.77.13\n"
    );
    let text = Seen::of(&event(Hook::Encap, Reason::Forwarded, 44), &host()).text();
    assert!(text.contains("50 bytes in 44 segments peer"), "{text}");
}

#[test]
fn a_packet_is_an_object() {
    let value = serde_json::to_value(Seen::of(&event(Hook::Encap, Reason::NoPeer, 0), &host())).unwrap();
    assert_eq!(value["peer"], "192.168.77.13");
    assert_eq!(value["pod"], "10.5.1.2");
    assert_eq!(value["inner"]["destination_port"], 53);
    assert!(value["outer"].is_null());
    assert_eq!(
        value.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "bytes",
            "hook",
            "inner",
            "interface",
            "outer",
            "peer",
            "pod",
            "reason",
            "segments",
            "time",
            "verdict"
        ]
    );
}

#[test]
fn filters_by_address_and_port() {
    let seen = Seen::of(&event(Hook::Encap, Reason::NoPeer, 0), &host());
    let is_asked = |line| parse(line).unwrap().is_asked(&seen);
    assert!(is_asked("") && is_asked("--host 10.5.3.9") && is_asked("--port 53 --host 10.5.1.2"));
    assert!(!is_asked("--host 10.5.3.8") && !is_asked("--port 54"));
    assert_eq!(host().peer("10.5.2.0/24").unwrap().to_string(), "192.168.77.12");
    assert!(host().peer("10.5.9.1").is_err());
}
