//! What packets look like at the other end.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use rstest::rstest;

use super::lab::{Lab, in_lab, receive};
use super::stock::{V0_28_NFTABLES, VERSIONS};
use super::{Means, network, run, spec};
use crate::rules::Spec;

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn who_sees_which_address(#[case] means: Means) {
    in_lab(async |_, lab| {
        means.ensure(&spec()).await;
        let Lab { pod, peer, outside } = &lab;
        let [at_pod, at_peer, at_outside] =
            [(pod, "10.5.1.7:4000"), (peer, "10.5.2.7:4000"), (outside, "192.0.2.9:4000")]
                .map(|(space, address)| space.listen(address));
        // Pods see each other.
        assert_eq!(pod.source_seen("10.5.1.7", &at_peer), "10.5.1.7");
        assert_eq!(peer.source_seen("10.5.2.7", &at_pod), "10.5.2.7");
        // The world sees the host.
        assert_eq!(pod.source_seen("10.5.1.7", &at_outside), "192.0.2.1");
        // A pod here sees the world; a pod on another host must answer by this one.
        assert_eq!(outside.source_seen("192.0.2.9", &at_pod), "192.0.2.9");
        assert_eq!(outside.source_seen("192.0.2.9", &at_peer), "10.5.1.0");
    });
}

/// kube-proxy masquerades what it has marked, other bits of the mark being anything.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn marked_packets_are_left_alone(#[case] means: Means, #[values("0x4000", "0x14000")] mark: &str) {
    in_lab(async |_, lab| {
        means.ensure(&spec()).await;
        run("nft", "add table ip marks");
        run("nft", "add chain ip marks pre { type filter hook prerouting priority mangle; }");
        run("nft", &format!("add rule ip marks pre meta mark set {mark}"));
        let outside = lab.outside.listen("192.0.2.9:4000");
        assert_eq!(lab.pod.source_seen("10.5.1.7", &outside), "10.5.1.7");
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn multicast_is_not_masqueraded(#[case] means: Means) {
    in_lab(async |_, lab| {
        means.ensure(&spec()).await;
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let listener = lab.outside.listen("239.1.1.1:4000");
        lab.outside.run(|| listener.join_multicast_v4(&group, &Ipv4Addr::new(192, 0, 2, 9))).unwrap();
        // Forwarding multicast takes a daemon; the host itself sends it, with an address of the network.
        run("ip", "address add 10.5.1.1/32 dev out");
        run("ip", "address delete 10.5.1.1/24 dev pod");
        UdpSocket::bind("10.5.1.1:0").unwrap().send_to(b"all", (group, 4000)).unwrap();
        assert_eq!(receive(&listener, &mut [0; 16]).as_deref(), Some("10.5.1.1"));
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn pods_forward_where_forward_drops(
    #[case] means: Means,
    #[values("iptables", "iptables-legacy")] dropping: &str,
    #[values("-P FORWARD DROP", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited")] refusal: &str,
) {
    in_lab(async |_, lab| {
        run(dropping, &format!("-w {refusal}"));
        run(dropping, "-w -I FORWARD -p udp --dport 4666 -j DROP");
        let outside = lab.outside.listen("192.0.2.9:4000");
        let wait = |time| outside.set_read_timeout(Some(time)).unwrap();
        wait(Duration::from_millis(200));
        let send = |port: u16| {
            lab.pod
                .run(|| UdpSocket::bind("10.5.1.7:0").unwrap().send_to(b"?", ("192.0.2.9", port)))
                .unwrap();
        };
        send(4000);
        assert_eq!(receive(&outside, &mut [0; 16]), None, "the host does not drop");
        means.ensure(&spec()).await;
        wait(Duration::from_secs(5));
        send(4000);
        assert!(receive(&outside, &mut [0; 16]).is_some(), "{}", means.listing());
        // What the user refuses by name stays refused.
        let refused = lab.outside.listen("192.0.2.9:4666");
        refused.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        send(4666);
        assert_eq!(receive(&refused, &mut [0; 16]), None);
    });
}

/// A packet to the tunnel's port would leave with the host's address, and a peer would take it for one of the host's.
/// No rule of the user's that accepts, or masquerades, comes before.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn pods_send_nothing_to_the_tunnels_port_of_a_host(
    #[case] means: Means,
    #[values(true, false)] masquerade: bool,
) {
    in_lab(async |_, lab| {
        run("iptables", "-w -A FORWARD -s 10.5.0.0/16 -j ACCEPT");
        run("iptables", "-w -t nat -A POSTROUTING -s 10.5.0.0/16 ! -d 10.5.0.0/16 -j MASQUERADE");
        let [at_outside, at_peer] = [(&lab.outside, "192.0.2.9:8472"), (&lab.peer, "10.5.2.7:8472")]
            .map(|(space, address)| space.listen(address));
        assert_eq!(lab.pod.source_seen("10.5.1.7", &at_outside), "192.0.2.1", "the attack does not work");
        means.ensure(&Spec { masquerade, ..spec() }).await;
        at_outside.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        lab.pod.run(|| UdpSocket::bind("10.5.1.7:0").unwrap().send_to(b"?", "192.0.2.9:8472")).unwrap();
        assert_eq!(receive(&at_outside, &mut [0; 16]), None, "{}", means.listing());
        // What is no packet of the tunnel passes: between pods, and as an answer.
        assert_eq!(lab.pod.source_seen("10.5.1.7", &at_peer), "10.5.1.7");
        let at_pod = lab.pod.listen("10.5.1.7:53");
        let asking = lab.outside.run(|| at_outside.send_to(b"?", "10.5.1.7:53"));
        asking.unwrap();
        assert_eq!(receive(&at_pod, &mut [0; 16]).as_deref(), Some("192.0.2.9"));
        lab.pod.run(|| at_pod.send_to(b"!", "192.0.2.9:8472")).unwrap();
        at_outside.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert!(receive(&at_outside, &mut [0; 16]).is_some(), "{}", means.listing());
    });
}

/// While `change` runs, a pod sends packets of new connections all the time. Every one must arrive, and be
/// masqueraded.
async fn without_a_gap(lab: &Lab, change: impl AsyncFnOnce()) {
    let outside = lab.outside.listen("192.0.2.9:4000");
    // A busy machine may leave packets lying for a while.
    setsockopt(&outside, RcvBufForce, &(64 << 20)).unwrap();
    let pod = lab.pod.clone();
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (has_ended, sending) = (ended.clone(), sent.clone());
    let send = move || {
        while !has_ended.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind("10.5.1.7:0").unwrap();
            let number = sending.fetch_add(1, Ordering::Relaxed);
            socket.send_to(&number.to_be_bytes(), "192.0.2.9:4000").unwrap();
            thread::sleep(Duration::from_micros(300));
        }
    };
    let some_more = async || {
        let enough = sent.load(Ordering::Relaxed) + 50;
        while sent.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let sender = thread::spawn(move || pod.run(send));
    some_more().await;
    change().await;
    some_more().await;
    ended.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let mut missing: BTreeSet<u32> = (0..sent.load(Ordering::Relaxed)).collect();
    let (mut packet, mut bare) = ([0; 4], Vec::new());
    while !missing.is_empty()
        && let Some(source) = receive(&outside, &mut packet)
    {
        missing.remove(&u32::from_be_bytes(packet));
        if source != "192.0.2.1" {
            bare.push(source);
        }
    }
    assert!(missing.is_empty(), "lost {} packets: {missing:?}", missing.len());
    assert!(bare.is_empty(), "not masqueraded: {bare:?}");
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn no_gap_while_rules_are_checked_and_daemons_restart(#[case] means: Means) {
    in_lab(async |_, lab| {
        means.ensure(&spec()).await;
        without_a_gap(&lab, async || {
            let rules = means.rules(&spec());
            for _ in 0..50 {
                assert!(rules.ensure().await.unwrap().is_empty());
            }
            // Daemons that end and start, with the same subnet, another one, other options.
            for _ in 0..5 {
                means.ensure(&spec()).await;
                means.ensure(&Spec { subnet: network("10.5.9.0/24"), ..spec() }).await;
                means.ensure(&Spec { fully_random: false, forward: false, ..spec() }).await;
            }
        })
        .await;
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn no_gap_while_damage_is_mended(#[case] means: Means) {
    let damage: &[(&str, &str)] = match means {
        Means::Nftables => &[
            ("nft", "insert rule ip flannel-ipv4 postrtg ip saddr 10.5.1.99 return"),
            ("nft", "flush chain ip flannel-ipv4 forward"),
        ],
        Means::Iptables => &[
            ("iptables", "-t nat -D FLANNEL-POSTRTG 6"),
            ("iptables", "-t nat -A POSTROUTING -j FLANNEL-POSTRTG"),
        ],
        Means::Legacy => &[
            ("iptables-legacy", "-w -t nat -D FLANNEL-POSTRTG 6"),
            ("iptables-legacy", "-w -t nat -I POSTROUTING -j FLANNEL-POSTRTG"),
        ],
    };
    in_lab(async |_, lab| {
        let rules = means.rules(&spec());
        rules.ensure().await.unwrap();
        without_a_gap(&lab, async || {
            for (program, arguments) in damage.repeat(10) {
                run(program, arguments);
                assert_eq!(rules.ensure().await.unwrap().len(), 1);
            }
        })
        .await;
    });
}

#[test]
fn no_gap_from_engine_to_engine() {
    in_lab(async |_, lab| {
        Means::Nftables.ensure(&spec()).await;
        without_a_gap(&lab, async || {
            for means in [Means::Iptables, Means::Legacy, Means::Nftables, Means::Legacy].repeat(5) {
                assert!(!means.ensure(&spec()).await.is_empty());
            }
        })
        .await;
    });
}

/// From stock flannel of every version to every engine.
#[rstest]
fn no_gap_in_a_migration(
    #[values(Means::Nftables, Means::Iptables, Means::Legacy)] means: Means,
    #[values(0, 1, 2, 3, 4)] version: usize,
    #[values(Means::Iptables, Means::Legacy)] old: Means,
) {
    in_lab(async |_, lab| {
        match VERSIONS.get(version) {
            Some(rules) => old.feed(rules),
            None => Means::Nftables.feed(V0_28_NFTABLES),
        }
        without_a_gap(&lab, async || {
            means.ensure(&spec()).await;
        })
        .await;
    });
}

/// The tests above would see a gap.
#[rstest]
#[case::nftables(Means::Nftables, "nft", "flush chain ip flannel-ipv4 postrtg")]
#[case::iptables(Means::Iptables, "iptables", "-t nat -F FLANNEL-POSTRTG")]
#[case::legacy(Means::Legacy, "iptables-legacy", "-w -t nat -F FLANNEL-POSTRTG")]
#[should_panic(expected = "not masqueraded")]
fn a_gap_is_seen(#[case] means: Means, #[case] program: &str, #[case] flush: &str) {
    in_lab(async |_, lab| {
        means.ensure(&spec()).await;
        without_a_gap(&lab, async || {
            run(program, flush);
            // Long enough for some packets.
            tokio::time::sleep(Duration::from_millis(100)).await;
            means.ensure(&spec()).await;
        })
        .await;
    });
}
