//! `flannelctl verify` finds what is wrong with that which flanneld keeps besides peers: rules, the blackhole route, the
//! segmenter.

use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::wait;
use nix::sys::signal::Signal;
use rstest::rstest;

use super::damage::{check_found, differences};
use super::{ask_json, state_file};

/// What somebody does, and what is reported about it.
type Damage = (&'static str, &'static str, &'static str);

const IPTABLES: &[Damage] = &[
    ("iptables", "-t nat -D FLANNEL-POSTRTG 1", "changed rules chain FLANNEL-POSTRTG (iptables)"),
    ("iptables", "-F FORWARD", "missing rules the jump from FORWARD to FLANNEL-FWD (iptables)"),
    ("iptables", "-F FLANNEL-FWD", "changed rules chain FLANNEL-FWD (iptables)"),
    ("iptables", "-X FLANNEL-FWD", "missing rules chain FLANNEL-FWD (iptables)"),
    (
        "iptables-legacy",
        "-w -t nat -N FLANNEL-POSTRTG",
        "unexpected rules chain FLANNEL-POSTRTG (iptables-legacy)",
    ),
];

const NFTABLES: &[Damage] = &[
    ("nft", "flush chain ip flannel-ipv4 postrtg", "changed rules chain postrtg of table ip flannel-ipv4"),
    ("nft", "delete table ip flannel-ipv4", "missing rules chain forward of table ip flannel-ipv4"),
    ("iptables", "-N FLANNEL-FWD", "unexpected rules chain FLANNEL-FWD (iptables)"),
];

#[rstest]
#[case::iptables(false, IPTABLES)]
#[case::nftables(true, NFTABLES)]
fn damaged_rules_and_a_lost_blackhole_route_are_found(#[case] nftables: bool, #[case] damages: &[Damage]) {
    let mut plan = Plan::new(r#"{"Type":"host-gw"}"#)
        .with_flag("--ip-masq")
        .with_flag("--ip-blackhole-route")
        .with_flag("--iptables-resync=3600");
    plan.config = format!(r#"{{"EnableNFTables":{nftables},{}"#, &plan.config[1..]);
    let mut cluster = Cluster::start(&plan).unwrap();
    let member = &cluster.members[0];
    let source = state_file(member, 1);
    assert_eq!(differences(member, &source), Vec::<String>::new());
    for (program, arguments, told) in damages {
        check_found(member, &source, told, || {
            member.node.host.namespace.run(program, arguments).unwrap();
        });
    }
    let subnet = member.node.file.subnet;
    check_found(member, &source, &format!("missing route blackhole {subnet}"), || {
        member.node.host.namespace.ip(&format!("route delete blackhole {subnet} metric 4294967295")).unwrap();
    });

    // Which rules are wanted is known from the daemon alone.
    cluster.members[0].daemon.kill().unwrap();
    let (code, answer) = ask_json(&cluster.members[0], &["verify", &source]);
    assert_eq!((code, answer["not_compared"].as_array().map(Vec::len)), (Some(0), Some(1)), "{answer}");
    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    assert_eq!(differences(&cluster.members[0], &source), Vec::<String>::new());
}

#[test]
fn a_segmenter_that_promises_too_much_is_found_and_mended() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"udp"}"#)).unwrap();
    let member = &cluster.members[0];
    let source = state_file(member, 1);
    assert_eq!(differences(member, &source), Vec::<String>::new());
    member.daemon.suspend().unwrap();
    for (program, arguments, told) in [
        ("ethtool", "-K flannel0-in tx on", "changed segmenter flannel0-in it promises checksums"),
        ("ip", "link set flannel0-out mtu 1300", "changed segmenter flannel0-out mtu is 1300, wanted 1472"),
        ("ip", "link set flannel0-out down", "changed segmenter flannel0-out it is down"),
        ("ip", "link set flannel0-out arp on", "changed segmenter flannel0-out it speaks ARP"),
        ("ip", "link delete flannel0-out", "missing segmenter flannel0-out"),
    ] {
        check_found(member, &source, told, || {
            member.node.host.namespace.run(program, arguments).unwrap();
        });
    }
    member.daemon.signal(Signal::SIGCONT).unwrap();
    wait::until_true("the daemon to mend it", Duration::from_secs(15), || {
        differences(member, &source).is_empty()
    })
    .unwrap();
}
