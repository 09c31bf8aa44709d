//! Leases that cannot be accepted side by side.

use flannel_model::backend::Kind;
use rstest::rstest;

use super::{
    added, changed, delete, in_network, lease, peer, peers, put, refused, removed, site, snapshot, vxlan,
};
use crate::peers::{Diff, PeerTable, Site};

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const C: &str = "02:00:00:00:00:0c";

/// A routed underlay that is a part of the network.
fn routed_site() -> Site {
    Site {
        addresses: vec!["10.250.0.11".parse().unwrap()],
        connected: Vec::new(),
        ..in_network(site(Kind::Vxlan), "10.0.0.0/8", "10.5.1.0/24")
    }
}

#[rstest]
#[case::mac_of_another_host(("10.5.2.0-24", "10.250.2.1", A), ("10.5.3.0-24", "10.250.3.1", A), "vtep_mac_taken")]
#[case::subnet_around_an_address(("10.5.2.0-24", "10.250.2.1", A), ("10.250.2.0-24", "10.251.3.1", B), "covers_peer")]
#[case::address_in_a_subnet(("10.250.2.0-24", "10.251.3.1", A), ("10.5.2.0-24", "10.250.2.1", B), "covers_peer")]
fn the_first_is_accepted_and_the_second_when_the_first_is_gone(
    #[case] first: (&str, &str, &str),
    #[case] second: (&str, &str, &str),
    #[case] label: &str,
) {
    let mut table = PeerTable::new(routed_site());
    table.apply_event(&put(first.0, &vxlan(first.1, first.2), 5));
    assert_eq!(table.apply_event(&put(second.0, &vxlan(second.1, second.2), 6)), Diff::default());
    assert_eq!(refused(&table), [(second.0.to_owned(), label)]);

    let before = peers(&table)[0];
    let diff = table.apply_event(&delete(first.0, 7));
    let after = peers(&table)[0];
    assert_eq!(after.public_ip.to_string(), second.1);
    assert_eq!(diff, Diff { added: vec![after], ..removed(before) });
    assert_eq!((refused(&table), table.refusals()), (Vec::new(), 1));
}

#[test]
fn subnet_that_goes_over_to_another_key_is_changed_or_the_same() {
    let dual_stack = "10.5.2.0-24&fd00::-64";
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 5));
    assert_eq!(table.apply_event(&put(dual_stack, &vxlan("192.168.77.12", A), 6)), Diff::default());
    assert_eq!(refused(&table), [(dual_stack.to_owned(), "subnet_taken")]);
    assert_eq!(table.apply_event(&delete("10.5.2.0-24", 7)), Diff::default());

    let back = lease("10.5.2.0-24", &vxlan("192.168.77.99", A), 8, 8);
    let (before, after) = (peer("10.5.2.0/24", "192.168.77.12", A), peer("10.5.2.0/24", "192.168.77.99", A));
    assert_eq!(table.apply_snapshot(&snapshot(8, &[back], &[])), changed(before, after));
    assert_eq!((peers(&table), refused(&table)), (vec![after], Vec::new()));
}

#[test]
fn second_is_accepted_when_the_first_is_absent_from_a_snapshot_or_has_changed() {
    let second = lease("10.5.3.0-24", &vxlan("192.168.77.13", A), 6, 6);
    let accepted = peer("10.5.3.0/24", "192.168.77.13", A);
    let first = peer("10.5.2.0/24", "192.168.77.12", A);
    let table = || {
        let mut table = PeerTable::new(site(Kind::Vxlan));
        table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 5));
        table.apply_event(&put("10.5.3.0-24", &vxlan("192.168.77.13", A), 6));
        table
    };
    let by_snapshot = Diff { added: vec![accepted], removed: vec![first], changed: Vec::new() };
    assert_eq!(table().apply_snapshot(&snapshot(8, &[second], &[])), by_snapshot);

    let other_mac = peer("10.5.2.0/24", "192.168.77.12", B);
    let by_change = Diff { added: vec![accepted], ..changed(first, other_mac) };
    assert_eq!(table().apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", B), 7)), by_change);
}

#[test]
fn one_host_may_hold_several_subnets() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 5));
    let second = peer("10.5.3.0/24", "192.168.77.12", A);
    assert_eq!(table.apply_event(&put("10.5.3.0-24", &vxlan("192.168.77.12", A), 6)), added(second));
}

#[test]
fn host_with_several_subnets_is_renumbered_when_the_last_of_its_leases_is_told() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    for (key, revision) in [("10.5.2.0-24", 5), ("10.5.3.0-24", 6)] {
        table.apply_event(&put(key, &vxlan("192.168.77.12", A), revision));
    }
    // As long as the other lease stands, the address is that of another host with the same VTEP.
    assert_eq!(table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.99", A), 7)), Diff::default());
    let second = peer("10.5.3.0/24", "192.168.77.12", A);
    let first = peer("10.5.2.0/24", "192.168.77.12", A);
    let after = peer("10.5.2.0/24", "192.168.77.99", A);
    let both = Diff { removed: vec![second], ..changed(first, after) };
    assert_eq!(table.apply_event(&delete("10.5.3.0-24", 8)), both);
}

#[test]
fn renumbered_host_is_changed() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 5));
    let (before, after) = (peer("10.5.2.0/24", "192.168.77.12", A), peer("10.5.2.0/24", "192.168.77.99", A));
    let diff = table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.99", A), 6));
    assert_eq!(diff, changed(before, after));
}

#[test]
fn chain_of_changes_in_one_snapshot_is_followed_to_its_end() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    for (key, ip, mac, revision) in [
        ("10.5.2.0-24", "192.168.77.12", A, 5),
        ("10.5.3.0-24", "192.168.77.13", B, 6),
        ("10.5.4.0-24", "192.168.77.14", C, 7),
    ] {
        table.apply_event(&put(key, &vxlan(ip, mac), revision));
    }
    // Each takes the Ethernet address of the next one, which arrives later.
    let leases = [
        lease("10.5.2.0-24", &vxlan("192.168.77.12", B), 5, 8),
        lease("10.5.3.0-24", &vxlan("192.168.77.13", C), 6, 9),
        lease("10.5.4.0-24", &vxlan("192.168.77.14", "02:00:00:00:00:0d"), 7, 10),
    ];
    let diff = table.apply_snapshot(&snapshot(10, &leases, &[]));
    assert_eq!(diff.changed.len(), 3, "{diff:?}");
    assert_eq!(refused(&table), []);
}

#[test]
fn older_key_wins_in_a_snapshot_however_recently_it_was_renewed() {
    let renewed = lease("10.5.9.0-24", &vxlan("192.168.77.19", A), 5, 9);
    let younger = lease("10.5.2.0-24", &vxlan("192.168.77.12", A), 6, 6);
    let mut table = PeerTable::new(site(Kind::Vxlan));
    let expected = added(peer("10.5.9.0/24", "192.168.77.19", A));
    assert_eq!(table.apply_snapshot(&snapshot(9, &[younger, renewed], &[])), expected);
}

#[test]
fn older_key_wins_when_what_excluded_both_is_gone() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put("10.5.5.0-24", &vxlan("192.168.77.15", A), 5));
    table.apply_event(&put("10.5.9.0-24", &vxlan("192.168.77.19", A), 6));
    table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 7));
    let gone = removed(peer("10.5.5.0/24", "192.168.77.15", A));
    let expected = Diff { added: vec![peer("10.5.9.0/24", "192.168.77.19", A)], ..gone };
    assert_eq!(table.apply_event(&delete("10.5.5.0-24", 8)), expected);
    assert_eq!(refused(&table), [("10.5.2.0-24".to_owned(), "vtep_mac_taken")]);
}

#[test]
fn deleted_candidate_has_no_second_chance() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put("10.5.2.0-24", &vxlan("192.168.77.12", A), 5));
    table.apply_event(&put("10.5.3.0-24", &vxlan("192.168.77.13", A), 6));
    table.apply_event(&delete("10.5.3.0-24", 7));
    let gone = removed(peer("10.5.2.0/24", "192.168.77.12", A));
    assert_eq!(table.apply_event(&delete("10.5.2.0-24", 8)), gone);
}
