//! How the table handles a sequence of events and snapshots.

use flannel_model::backend::Kind;
use flannel_model::lease::{Event, Lease, Snapshot};
use rstest::rstest;

use super::{added, changed, delete, junk, lease, peer, peers, put, refused, removed, site, snapshot, vxlan};
use crate::peers::{Diff, Peer, PeerTable};

const KEY: &str = "10.5.2.0-24";
const OWN_KEY: &str = "10.5.1.0-24";
const MAC: &str = "02:00:00:00:00:0a";

fn first() -> Peer {
    peer("10.5.2.0/24", "192.168.77.12", MAC)
}

fn moved() -> Peer {
    peer("10.5.2.0/24", "192.168.77.99", MAC)
}

fn put_first(revision: i64) -> Event {
    put(KEY, &vxlan("192.168.77.12", MAC), revision)
}

fn put_moved(revision: i64) -> Event {
    put(KEY, &vxlan("192.168.77.99", MAC), revision)
}

fn first_lease(mod_revision: i64) -> Lease {
    lease(KEY, &vxlan("192.168.77.12", MAC), 5, mod_revision)
}

/// A table that knows one peer since revision 5.
fn table() -> PeerTable {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    assert_eq!(table.apply_event(&put_first(5)), added(first()));
    table
}

#[test]
fn renewal_changes_nothing() {
    assert_eq!(table().apply_event(&put_first(6)), Diff::default());
}

#[test]
fn deletion_removes() {
    let mut table = table();
    assert_eq!(table.apply_event(&delete(KEY, 6)), removed(first()));
    assert_eq!(peers(&table), []);
    assert_eq!(table.apply_event(&delete(KEY, 7)), Diff::default());
}

#[rstest]
#[case::junk(Event::Rejected(junk(KEY, 6)), "unreadable")]
#[case::other_backend(put(KEY, r#"{"PublicIP":"192.168.77.12","BackendType":"host-gw"}"#, 6), "backend_type")]
#[case::no_host(put(KEY, &vxlan("0.0.0.0", MAC), 6), "no_host_address")]
fn refused_value_leaves_the_peer_as_it_was(#[case] event: Event, #[case] label: &'static str) {
    let mut table = table();
    assert_eq!(table.apply_event(&event), Diff::default());
    assert_eq!((peers(&table), refused(&table)), (vec![first()], vec![(KEY.to_owned(), label)]));
    // So does a listing of the same, and the next good value ends it.
    let listing = match &event {
        Event::Put(lease) => snapshot(6, std::slice::from_ref(lease), &[]),
        _ => snapshot(6, &[], &[junk(KEY, 6)]),
    };
    assert_eq!(table.apply_snapshot(&listing), Diff::default());
    assert_eq!((peers(&table), table.refusals()), (vec![first()], 1));
    assert_eq!(table.apply_event(&put_moved(7)), changed(first(), moved()));
    assert_eq!(refused(&table), []);
}

#[test]
fn deletion_of_a_refused_value_removes_the_peer_it_left() {
    let mut table = table();
    table.apply_event(&Event::Rejected(junk(KEY, 6)));
    assert_eq!(table.apply_event(&delete(KEY, 7)), removed(first()));
    assert_eq!(refused(&table), []);
}

#[rstest]
#[case::write(put_moved(4))]
#[case::write_again(put_moved(5))]
#[case::junk(Event::Rejected(junk(KEY, 4)))]
#[case::deletion(delete(KEY, 4))]
#[case::deletion_again(delete(KEY, 5))]
fn event_older_than_what_is_known_changes_nothing(#[case] event: Event) {
    let mut table = table();
    assert_eq!(table.apply_event(&event), Diff::default());
    assert_eq!((peers(&table), refused(&table)), (vec![first()], Vec::new()));
}

#[test]
fn write_older_than_the_deletion_changes_nothing() {
    let mut table = table();
    table.apply_event(&delete(KEY, 8));
    assert_eq!(table.apply_event(&put_first(5)), Diff::default());
    assert_eq!(table.apply_event(&put_moved(7)), Diff::default());
    assert_eq!(table.apply_event(&put_moved(9)), added(moved()));
    assert_eq!(table.apply_event(&delete(KEY, 8)), Diff::default());
    assert_eq!(peers(&table), [moved()]);
}

#[test]
fn write_older_than_a_snapshot_without_the_key_changes_nothing() {
    let mut table = table();
    assert_eq!(table.apply_snapshot(&snapshot(8, &[], &[])), removed(first()));
    assert_eq!(table.apply_event(&put_first(8)), Diff::default());
    assert_eq!(table.apply_event(&put_first(9)), added(first()));
}

#[test]
fn snapshot_adds_changes_and_removes() {
    let mut table = table();
    let second = peer("10.5.3.0/24", "192.168.77.13", "02:00:00:00:00:0b");
    let third = peer("10.5.4.0/24", "192.168.77.14", "02:00:00:00:00:0c");
    table.apply_event(&put("10.5.3.0-24", &vxlan("192.168.77.13", "02:00:00:00:00:0b"), 6));
    let leases = [
        lease("10.5.4.0-24", &vxlan("192.168.77.14", "02:00:00:00:00:0c"), 8, 8),
        lease(KEY, &vxlan("192.168.77.99", MAC), 5, 9),
    ];
    let listing = snapshot(9, &leases, &[junk("hello", 7)]);
    let expected = Diff { added: vec![third], changed: vec![(first(), moved())], removed: vec![second] };
    assert_eq!(table.apply_snapshot(&listing), expected);
    assert_eq!(table.apply_snapshot(&listing), Diff::default());
    assert_eq!(table.refusals(), 1);
    assert_eq!(table.apply_snapshot(&snapshot(10, &leases, &[])), Diff::default());
    assert_eq!(refused(&table), []);
}

#[test]
fn snapshot_says_nothing_of_what_was_written_after_it() {
    let mut table = table();
    assert_eq!(table.apply_snapshot(&snapshot(4, &[], &[])), Diff::default());
    assert_eq!(peers(&table), [first()]);
    table.apply_event(&put_moved(9));
    table.apply_event(&delete("10.5.3.0-24", 9));
    let deleted_since = lease("10.5.3.0-24", &vxlan("192.168.77.13", "02:00:00:00:00:0b"), 6, 6);
    assert_eq!(table.apply_snapshot(&snapshot(8, &[first_lease(5), deleted_since], &[])), Diff::default());
    assert_eq!(peers(&table), [moved()]);
}

#[test]
fn registry_that_was_made_anew_is_believed() {
    let mut table = table();
    table.apply_event(&put("10.5.3.0-24", &vxlan("192.168.77.13", "02:00:00:00:00:0b"), 900));
    table.apply_snapshot(&snapshot(
        1000,
        &[first_lease(5), lease("10.5.3.0-24", &vxlan("192.168.77.13", "02:00:00:00:00:0b"), 900, 900)],
        &[],
    ));
    let moved_lease = lease(KEY, &vxlan("192.168.77.99", MAC), 3, 5);
    let second = peer("10.5.3.0/24", "192.168.77.13", "02:00:00:00:00:0b");
    let expected = Diff { removed: vec![second], ..changed(first(), moved()) };
    assert_eq!(table.apply_snapshot(&snapshot(7, &[moved_lease], &[])), expected);
    assert_eq!(table.apply_event(&put_first(8)), changed(moved(), first()));
}

#[test]
fn registry_that_was_restored_is_believed() {
    let mut table = table();
    table.apply_event(&put_moved(900));
    // Its revisions have gone beyond those known, but the key was not written as late as in the lost history.
    assert_eq!(table.apply_snapshot(&snapshot(901, &[first_lease(6)], &[])), changed(moved(), first()));
}

#[test]
fn registry_that_began_anew_is_believed_although_it_was_listed_at_an_older_moment() {
    let mut table = table();
    table.apply_snapshot(&snapshot(6, &[first_lease(5)], &[]));
    table.apply_event(&put_moved(9));
    let restored = Snapshot { history_reset: true, ..snapshot(8, &[first_lease(5)], &[]) };
    assert_eq!(table.apply_snapshot(&restored), changed(moved(), first()));
    assert_eq!(table.apply_event(&put_moved(9)), changed(first(), moved()));
}

#[rstest]
#[case::lease(put(OWN_KEY, &vxlan("192.168.77.11", "02:00:00:00:00:11"), 6))]
#[case::lease_of_another(put(OWN_KEY, &vxlan("192.168.77.12", "02:00:00:00:00:0b"), 6))]
#[case::junk(Event::Rejected(junk(OWN_KEY, 6)))]
#[case::deletion(delete(OWN_KEY, 6))]
fn own_key_is_ignored(#[case] event: Event) {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    assert_eq!(table.apply_event(&event), Diff::default());
    let own = lease(OWN_KEY, &vxlan("192.168.77.12", "02:00:00:00:00:0b"), 6, 7);
    assert_eq!(table.apply_snapshot(&snapshot(8, &[own], &[])), Diff::default());
    assert_eq!(table.apply_snapshot(&snapshot(9, &[], &[junk(OWN_KEY, 9)])), Diff::default());
    assert_eq!(table.apply_snapshot(&snapshot(10, &[], &[])), Diff::default());
    assert_eq!((peers(&table), refused(&table), table.refusals()), (Vec::new(), Vec::new(), 0));
}
