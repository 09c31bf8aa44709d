use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_common::maps::{Count, PeerCount};
use flannel_common::{Hook, Reason};
use flannel_control::Metrics;
use flannel_datapath::metrics::{DatapathSource, PerPeer};
use flannel_observe::{Format, Vitals};
use nix::time::{ClockId, clock_gettime};

use super::super::exposition;
use super::pins::Pins;
use super::{no_files, value};

#[test]
fn the_datapath_is_read() {
    let mut pins = Pins::new();
    let (tunnel, direct) = (Ipv4Addr::new(10, 5, 2, 0), Ipv4Addr::new(10, 5, 3, 0));
    pins.put_peer(tunnel, Ipv4Addr::new(192, 168, 77, 12), false);
    pins.put_peer(direct, Ipv4Addr::new(192, 168, 77, 13), true);
    let count = |packets, bytes| Count { packets, bytes };
    pins.count(Hook::Encap, Reason::Forwarded, count(5, 500));
    pins.count(Hook::Encap, Reason::NoPeer, count(6, 600));
    pins.count(Hook::Decap, Reason::UnknownOuterSource, count(7, 700));
    pins.count(Hook::Decap, Reason::NotTunnel, count(8, 800));
    pins.count_peer(
        tunnel,
        PeerCount {
            sent: count(1, 100),
            received: count(2, 200),
            last_seen: monotonic() - 3_000_000_000,
            last_former: 0,
        },
    );

    let pin_dir = pins.path().to_owned();
    let read = |per_peer| {
        let source = DatapathSource { pin_dir: pin_dir.clone(), per_peer };
        exposition(&Vitals::default(), &Metrics::default(), Some(&source), no_files())
            .encode(Format::Prometheus)
            .unwrap()
    };
    let text = read(PerPeer::WhileFew);
    let expected = [
        (
            r#"flannel_datapath_info{mode="vxlan",guard="strict",vni="1",port="8472",local_ip="192.168.77.11",subnet="10.5.1.0/24",underlay="",device=""}"#,
            1.0,
        ),
        (
            r#"flannel_forward_packets_total{hook="encap",direction="out",mode="vxlan",reason="forwarded"}"#,
            5.0,
        ),
        (
            r#"flannel_forward_bytes_total{hook="encap",direction="out",mode="vxlan",reason="forwarded"}"#,
            500.0,
        ),
        (
            r#"flannel_forward_packets_total{hook="xdp",direction="in",mode="vxlan",reason="handed_over"}"#,
            0.0,
        ),
        (r#"flannel_drop_packets_total{hook="encap",direction="out",reason="no_peer"}"#, 6.0),
        (r#"flannel_drop_bytes_total{hook="encap",direction="out",reason="no_peer"}"#, 600.0),
        (r#"flannel_drop_packets_total{hook="decap",direction="in",reason="unknown_outer_source"}"#, 7.0),
        (r#"flannel_drop_packets_total{hook="decap",direction="in",reason="truncated"}"#, 0.0),
        (r#"flannel_pass_packets_total{hook="decap",direction="in",reason="not_tunnel"}"#, 8.0),
        (r#"flannel_pass_bytes_total{hook="decap",direction="in",reason="not_tunnel"}"#, 800.0),
        (r#"flannel_bpf_map_entries{map="PEERS"}"#, 2.0),
        (r#"flannel_bpf_map_entries{map="SOURCES"}"#, 2.0),
        (r#"flannel_bpf_map_entries{map="PEER_COUNTERS"}"#, 1.0),
        (r#"flannel_bpf_map_entries{map="PORTS"}"#, 0.0),
        (r#"flannel_bpf_map_capacity{map="PEERS"}"#, 65_536.0),
        (r#"flannel_bpf_map_capacity{map="PORTS"}"#, 32_768.0),
        (r#"flannel_bpf_map_pressure_ratio{map="PEERS"}"#, 2.0 / 65_536.0),
        (r#"flannel_peer_tx_packets_total{peer="10.5.2.0/24"}"#, 1.0),
        (r#"flannel_peer_tx_bytes_total{peer="10.5.2.0/24"}"#, 100.0),
        (r#"flannel_peer_rx_packets_total{peer="10.5.2.0/24"}"#, 2.0),
        (r#"flannel_peer_rx_bytes_total{peer="10.5.2.0/24"}"#, 200.0),
        (r#"flannel_peer_rx_bytes_total{peer="10.5.3.0/24"}"#, 0.0),
        (
            r#"flannel_peer_info{peer="10.5.2.0/24",public_ip="192.168.77.12",path="tunnel",vtep_mac="02:00:00:00:00:02"}"#,
            1.0,
        ),
        (
            r#"flannel_peer_info{peer="10.5.3.0/24",public_ip="192.168.77.13",path="direct",vtep_mac="02:00:00:00:00:02"}"#,
            1.0,
        ),
        (r#"flannel_scrape_errors_total{source="datapath"}"#, 0.0),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    let ago = value(&text, r#"flannel_peer_last_seen_seconds{peer="10.5.2.0/24"}"#).unwrap();
    assert!((3.0..30.0).contains(&ago), "{ago}");
    // A peer that never sent has no time stamp, and series of passes appear with the first packet.
    assert!(!text.contains(r#"last_seen_seconds{peer="10.5.3.0/24"}"#), "{text}");
    assert!(!text.contains(r#"reason="foreign_peer""#), "{text}");
    assert!(text.lines().filter(|line| line.contains(r#"peer="10.5.2.0/24""#)).count() <= 8, "{text}");

    let text = read(PerPeer::Never);
    assert!(!text.contains("10.5.2.0/24"), "{text}");
    assert_eq!(value(&text, r#"flannel_bpf_map_entries{map="PEERS"}"#), Some(2.0));
    // Two are there.
    for host in 2..PerPeer::FEW as u8 {
        pins.put_peer(Ipv4Addr::new(10, 5, host + 100, 0), Ipv4Addr::new(192, 168, 78, host), false);
    }
    let series = |per_peer| read(per_peer).matches("flannel_peer_info{").count();
    assert_eq!(series(PerPeer::WhileFew), PerPeer::FEW);
    pins.put_peer(Ipv4Addr::new(10, 5, 1, 0), Ipv4Addr::new(192, 168, 78, 200), false);
    assert_eq!((series(PerPeer::WhileFew), series(PerPeer::Always)), (0, PerPeer::FEW + 1));
    assert_eq!(series(PerPeer::Never), 0);
}

#[test]
fn maps_that_cannot_be_read_are_counted_and_spoil_nothing_else() {
    let vitals = Vitals::default();
    let exposition = super::exposition(&vitals);
    for scrape in 1..=3 {
        let text = exposition.encode(Format::OpenMetrics).unwrap();
        assert_eq!(
            value(&text, r#"flannel_scrape_errors_total{source="datapath"}"#),
            Some(f64::from(scrape))
        );
        assert!(!text.contains("flannel_datapath_info"), "{text}");
        assert!(text.contains("\nprocess_open_fds "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}

pub(super) fn monotonic() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos().try_into().unwrap()
}
