use flannel_model::family::Family;
use flannel_model::lease::{Event, Key, Revision};
use serde_json::{Value, json};

use super::{Changes, Directory, Entry, Shared};
use crate::annotations::Prefix;
use crate::node::Node;

fn prefix() -> Prefix {
    "flannel.alpha.coreos.com".parse().unwrap()
}

fn revision(number: i64) -> Revision {
    Revision::new(number)
}

/// A node of this name, made in this second of 2026, of this incarnation.
fn node(name: &str, second: u32, uid: &str, cidrs: &[&str], public_ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "uid": uid,
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "host-gw",
                "flannel.alpha.coreos.com/backend-data": "null",
                "flannel.alpha.coreos.com/public-ip": public_ip,
            },
        },
        "spec": { "podCIDRs": cidrs },
    })
}

fn entry(node: Value) -> Entry {
    let node: Node = serde_json::from_value(node).unwrap();
    Entry::new(&prefix(), node.metadata, Some(&node.spec))
}

/// As a watch of metadata tells of it.
fn metadata(mut node: Value) -> Entry {
    node.as_object_mut().unwrap().remove("spec");
    let node: Node = serde_json::from_value(node).unwrap();
    Entry::new(&prefix(), node.metadata, None)
}

fn directory() -> Directory {
    Directory::new("own", vec![Family::V4])
}

/// What happened, in short: `+subnet@address`, `-key` and `!key: reason`.
fn told(changes: Changes) -> Vec<String> {
    let text = |event: Event| match event {
        Event::Put(lease) => format!("+{}@{}", lease.key(), lease.attributes.public),
        Event::Delete { key, .. } => format!("-{key}"),
        Event::Rejected(rejected) => format!("!{}: {}", rejected.key, rejected.reason),
    };
    changes.events.into_iter().map(text).collect()
}

#[test]
fn nodes_become_leases() {
    let mut directory = directory();
    let nodes = vec![
        (entry(node("own", 1, "o", &["10.244.0.0/24"], "192.168.77.10")), revision(3)),
        (entry(node("a", 2, "a", &["10.244.1.0/24"], "192.168.77.11")), revision(5)),
        (entry(json!({"metadata": {"name": "bare"}, "spec": {"podCIDR": "10.244.9.0/24"}})), revision(6)),
        (entry(node("late", 3, "l", &[], "192.168.77.13")), revision(7)),
    ];
    let (snapshot, shared) = directory.replace(nodes, revision(9));
    assert_eq!(snapshot.revision, revision(9));
    let [lease] = &*snapshot.leases else { panic!("{snapshot:?}") };
    assert_eq!((lease.key().to_string(), lease.mod_revision), ("10.244.1.0-24".to_owned(), revision(5)));
    assert_eq!(lease.created, revision(1_767_225_602), "the second in which the node was made");
    assert!(snapshot.rejected.is_empty() && shared.is_empty());
}

#[test]
fn heartbeats_are_no_changes() {
    let mut directory = directory();
    let a = || node("a", 1, "a", &["10.244.1.0/24"], "192.168.77.11");
    assert_eq!(told(directory.put(entry(a()), revision(2))), ["+10.244.1.0-24@192.168.77.11"]);
    let known = directory.complete(metadata(a()));
    assert!(!known.lacks_assignment(), "what was assigned is known of this node");
    assert_eq!(directory.put(known, revision(3)), Changes::default());
}

#[test]
fn an_assignment_that_comes_late_makes_a_lease() {
    let mut directory = directory();
    let bare = entry(node("a", 1, "a", &[], "192.168.77.11"));
    assert!(bare.lacks_assignment());
    assert_eq!(directory.put(bare, revision(2)), Changes::default());
    let assigned = entry(node("a", 1, "a", &["10.244.1.0/24"], "192.168.77.11"));
    assert_eq!(told(directory.put(assigned, revision(3))), ["+10.244.1.0-24@192.168.77.11"]);
}

#[test]
fn annotations_that_are_removed_end_the_lease() {
    let mut directory = directory();
    directory.put(entry(node("a", 1, "a", &["10.244.1.0/24"], "192.168.77.11")), revision(2));
    let bare = entry(json!({"metadata": {"name": "a", "uid": "a"}, "spec": {"podCIDR": "10.244.1.0/24"}}));
    assert_eq!(told(directory.put(bare, revision(3))), ["-10.244.1.0-24"]);
    assert_eq!(directory.remove("a", revision(4)), Changes::default(), "told already");
    directory.put(entry(node("b", 1, "b", &["10.244.2.0/24"], "192.168.77.12")), revision(5));
    assert_eq!(told(directory.remove("b", revision(6))), ["-10.244.2.0-24"]);
}

#[test]
fn a_node_made_again_has_its_new_subnet_alone() {
    let mut directory = directory();
    directory.put(entry(node("a", 1, "first", &["10.244.1.0/24"], "192.168.77.11")), revision(2));
    let again = || node("a", 9, "second", &["10.244.7.0/24"], "192.168.77.11");
    assert!(directory.complete(metadata(again())).lacks_assignment(), "that of the former node says nothing");
    let events = told(directory.put(entry(again()), revision(8)));
    assert_eq!(events, ["-10.244.1.0-24", "+10.244.7.0-24@192.168.77.11"]);
}

#[test]
fn of_two_nodes_with_one_subnet_the_older_one_has_it() {
    let mut directory = directory();
    let (old, new) = (
        node("z-old", 1, "o", &["10.244.1.0/24"], "192.168.77.11"),
        node("a-new", 5, "n", &["10.244.1.0/24"], "192.168.77.66"),
    );
    assert_eq!(told(directory.put(entry(new.clone()), revision(2))), ["+10.244.1.0-24@192.168.77.66"]);
    let events = told(directory.put(entry(old.clone()), revision(3)));
    let reason = "!node a-new: its podCIDR 10.244.1.0/24 is that of the node z-old, too";
    assert_eq!(events, ["+10.244.1.0-24@192.168.77.11", reason]);
    let (snapshot, _) =
        directory.replace(vec![(entry(new), revision(2)), (entry(old), revision(3))], revision(4));
    assert_eq!((snapshot.leases.len(), snapshot.rejected.len()), (1, 1));
    let events = told(directory.remove("z-old", revision(5)));
    assert_eq!(events, ["+10.244.1.0-24@192.168.77.66", "-node a-new"]);
}

#[test]
fn the_own_node_is_no_peer_whatever_subnet_it_gets() {
    let mut directory = directory();
    for (number, cidr) in [(2, "10.244.0.0/24"), (3, "10.244.8.0/24")] {
        let own = entry(node("own", 1, &number.to_string(), &[cidr], "192.168.77.10"));
        assert_eq!(directory.put(own, revision(number)), Changes::default());
    }
    assert_eq!(directory.remove("own", revision(4)), Changes::default());
}

#[test]
fn nodes_with_one_address_are_told_once() {
    let mut directory = directory();
    directory.put(entry(node("own", 1, "o", &["10.244.0.0/24"], "192.168.77.10")), revision(2));
    let twin = || entry(node("twin", 2, "t", &["10.244.1.0/24"], "192.168.77.10"));
    let address = "192.168.77.10".parse().unwrap();
    let nodes = vec!["own".to_owned(), "twin".to_owned()];
    assert_eq!(directory.put(twin(), revision(3)).shared, [Shared { address, nodes }]);
    let moved = entry(node("third", 2, "3", &["10.244.2.0/24"], "192.168.77.10"));
    assert!(directory.put(moved, revision(4)).shared.is_empty(), "told already");
    directory.remove("third", revision(5));
    let nodes = vec!["own".to_owned()];
    assert_eq!(directory.remove("twin", revision(6)).shared, [Shared { address, nodes }], "over");
}

#[test]
fn junk_spoils_its_node_alone() {
    let mut directory = directory();
    let good = node("good", 1, "g", &["10.244.1.0/24"], "192.168.77.11");
    let cases = [
        (node("a", 2, "a", &["10.244.2.0"], "192.168.77.12"), "podCIDR is no network: 10.244.2.0"),
        (
            node("b", 2, "b", &["10.244.2.0/24", "10.244.3.0/24"], "192.168.77.12"),
            "pod cidrs should be IPv4/IPv6 only or dualstack: they are 10.244.2.0/24, 10.244.3.0/24",
        ),
        (
            node("c", 2, "c", &["10.244.2.0/24"], "nowhere"),
            "annotation flannel.alpha.coreos.com/public-ip is no IPv4 address: nowhere",
        ),
        (
            node("d", 2, "d", &["fd00:10:244::/64"], "192.168.77.12"),
            "its podCIDR fd00:10:244::/64 is of a family that is not served",
        ),
    ];
    directory.put(entry(good), revision(1));
    for (number, (node, reason)) in (2..).zip(cases) {
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        let events = told(directory.put(entry(node), revision(number)));
        assert_eq!(events, [format!("!node {name}: {reason}")]);
    }
    let key = Key::Junk("node a".to_owned());
    let delete = Event::Delete { key, mod_revision: revision(9) };
    assert_eq!(directory.remove("a", revision(9)).events, [delete]);
}

#[test]
fn families_do_not_depend_on_each_other() {
    let mut directory = Directory::new("own", vec![Family::V4, Family::V6]);
    let mut both = node("a", 1, "a", &["10.244.1.0/24", "fd00:10:244:1::/64"], "192.168.77.11");
    let annotations = &mut both["metadata"]["annotations"];
    annotations["flannel.alpha.coreos.com/public-ipv6"] = json!("junk");
    let events = told(directory.put(entry(both.clone()), revision(2)));
    assert_eq!(events, ["+10.244.1.0-24&fd00:10:244:1::-64@192.168.77.11"], "IPv4 is served");
    both["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ipv6"] = json!("fd77::11");
    let events = told(directory.put(entry(both), revision(3)));
    assert_eq!(
        events,
        ["+10.244.1.0-24&fd00:10:244:1::-64@192.168.77.11 and fd77::11"],
        "a change of one counts"
    );
}
