//! What holds of every table, however it came about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flannel_model::backend::Kind;
use flannel_model::config::cidr::overlap;
use flannel_model::lease::{Event, Key, Lease};
use ipnetwork::IpNetwork;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::{delete, in_network, junk, lease, peers, site, snapshot, vxlan};
use crate::peers::{Diff, Peer, PeerTable, Site};

/// Of this thread: the machine may do much else.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn sixty_thousand_leases_take_no_time() {
    let site = in_network(site(Kind::Vxlan), "10.0.0.0/8", "10.5.1.0/24");
    let leases: Vec<Lease> = (0..60_000u32)
        .map(|n| {
            let [_, _, high, low] = n.to_be_bytes();
            let (ip, mac) = (format!("172.16.{high}.{low}"), format!("02:01:00:00:{high:02x}:{low:02x}"));
            lease(&format!("10.{}.{low}.0-24", 6 + u32::from(high)), &vxlan(&ip, &mac), 7, 7)
        })
        .collect();
    let listing = snapshot(7, &leases, &[]);
    let mut table = PeerTable::new(site);
    let start = cpu_time();
    assert_eq!(table.apply_snapshot(&listing).added.len(), 60_000);
    assert_eq!(table.apply_snapshot(&listing), Diff::default());
    let took = cpu_time() - start;
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn host_with_ten_thousand_subnets_takes_no_time() {
    let site = in_network(site(Kind::Vxlan), "10.0.0.0/8", "10.5.1.0/24");
    let value = vxlan("192.168.77.12", "02:00:00:00:00:0a");
    let leases: Vec<Lease> =
        (0..10_000).map(|n| lease(&format!("10.{}.{}.0-24", 6 + n / 256, n % 256), &value, 7, 7)).collect();
    let mut table = PeerTable::new(site);
    let start = cpu_time();
    assert_eq!(table.apply_snapshot(&snapshot(7, &leases, &[])).added.len(), 10_000);
    let took = cpu_time() - start;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// What reads the differences has the same peers, by their subnets, as the table.
#[derive(Default)]
struct Reader(BTreeMap<IpNetwork, Peer>);

impl Reader {
    fn read(&mut self, diff: Diff) {
        for peer in diff.removed {
            assert_eq!(self.0.remove(&peer.subnet), Some(peer), "removed what was not there");
        }
        for (before, after) in diff.changed {
            assert_eq!(self.0.insert(after.subnet, after), Some(before), "changed what was not there");
            assert_ne!(before, after);
        }
        for peer in diff.added {
            assert_eq!(self.0.insert(peer.subnet, peer), None, "added what was there");
        }
    }
}

fn check(table: &PeerTable, reader: &Reader, site: &Site) {
    let all = peers(table);
    assert_eq!(all.iter().map(|peer| (peer.subnet, *peer)).collect::<BTreeMap<_, _>>(), reader.0);
    assert_eq!(all.len(), reader.0.len());
    let mut hosts = BTreeMap::new();
    let own = site.families.v4.unwrap().subnet;
    for peer in &all {
        assert!(!overlap(peer.subnet, own) && !site.addresses.contains(&peer.public_ip));
        assert!(!all.iter().any(|other| other.subnet.contains(peer.public_ip)), "{peer:?}");
        assert_eq!(*hosts.entry(peer.vtep_mac).or_insert(peer.public_ip), peer.public_ip, "{peer:?}");
    }
}

/// Everything that can stand at a key, good and bad. Two MACs for all and addresses in each other's subnets.
#[derive(Clone, Debug)]
enum Word {
    Lease(&'static str, &'static str),
    Junk,
    Nothing,
}

const KEYS: [&str; 8] = [
    "10.5.1.0-24",
    "10.5.2.0-24",
    "10.5.2.0-24&fd00::-64",
    "10.5.3.0-24",
    "10.5.4.0-24",
    "10.5.4.7-24",
    "0.0.0.0-0",
    "172.16.9.0-24",
];
const ADDRESSES: [&str; 6] =
    ["192.168.77.12", "192.168.77.13", "10.5.3.9", "10.5.2.9", "192.168.77.11", "0.0.0.0"];
const MACS: [&str; 4] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:11", "nonsense"];

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        5 => (prop::sample::select(&ADDRESSES[..]), prop::sample::select(&MACS[..]))
            .prop_map(|(ip, mac)| Word::Lease(ip, mac)),
        1 => Just(Word::Junk),
        2 => Just(Word::Nothing),
    ]
}

fn event(key: &str, word: &Word, revision: i64) -> Event {
    match word {
        Word::Lease(ip, mac) => Event::Put(lease(key, &vxlan(ip, mac), revision, revision)),
        Word::Junk => Event::Rejected(junk(key, revision)),
        Word::Nothing => delete(key, revision),
    }
}

/// What a registry holds after some events.
#[derive(Default)]
struct Content(BTreeMap<Key, Event>);

impl Content {
    fn take(&mut self, event: &Event) {
        let (key, mut event) = (event.key(), event.clone());
        if let (Event::Put(lease), Some(Event::Put(before))) = (&mut event, self.0.get(&key)) {
            lease.created = before.created;
        }
        self.0.insert(key, event);
    }

    fn snapshot(&self, revision: i64) -> flannel_model::lease::Snapshot {
        let mut snapshot = snapshot(revision, &[], &[]);
        for event in self.0.values() {
            match event {
                Event::Put(lease) => snapshot.leases.push(lease.clone()),
                Event::Rejected(rejected) => snapshot.rejected.push(rejected.clone()),
                Event::Delete { .. } => {}
            }
        }
        snapshot
    }
}

proptest! {
    /// Events in any order, late, doubled and lost, listings in between: the rules hold all the time, and a listing
    /// applied twice changes nothing.
    #[test]
    fn rules_hold_whatever_is_told(
        steps in prop::collection::vec((0..KEYS.len(), word(), 0i64..60, 0..8u8), 0..60),
    ) {
        let site = site(Kind::Vxlan);
        let (mut table, mut reader, mut content) = (PeerTable::new(site.clone()), Reader::default(), Content::default());
        for (key, word, revision, kind) in steps {
            let event = event(KEYS[key], &word, revision);
            if kind == 0 {
                let listing = content.snapshot(revision);
                reader.read(table.apply_snapshot(&listing));
                prop_assert_eq!(table.apply_snapshot(&listing), Diff::default());
            } else {
                content.take(&event);
                reader.read(table.apply_event(&event));
            }
            check(&table, &reader, &site);
        }
    }

    /// Without conflicts and junk only the last listing counts: not earlier events, nor lost ones.
    #[test]
    fn listing_makes_up_for_lost_late_and_doubled_events(
        steps in prop::collection::vec((2u8..8, 0u8..3, any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 1..60),
    ) {
        let (mut table, mut content, mut told) = (PeerTable::new(site(Kind::Vxlan)), Content::default(), Vec::new());
        for (at, (host, variant, is_lost, is_doubled, earlier)) in steps.iter().enumerate() {
            let revision = i64::try_from(at).unwrap() + 1;
            let key = format!("10.5.{host}.0-24");
            let event = match variant {
                0 => delete(&key, revision),
                _ => {
                    let value = vxlan(&format!("192.168.77.{}", 20 + host * 3 + variant), &format!("02:00:00:00:00:{host:02x}"));
                    Event::Put(lease(&key, &value, revision, revision))
                }
            };
            content.take(&event);
            told.push(event.clone());
            if !is_lost {
                table.apply_event(&event);
            }
            if *is_doubled {
                table.apply_event(earlier.get(&told));
            }
        }
        let listing = content.snapshot(i64::try_from(steps.len()).unwrap());
        table.apply_snapshot(&listing);
        let mut fresh = PeerTable::new(site(Kind::Vxlan));
        fresh.apply_snapshot(&listing);
        prop_assert_eq!(peers(&table), peers(&fresh));
        let live: BTreeSet<IpNetwork> = listing.leases.iter().flat_map(|lease| lease.subnets.iter()).collect();
        prop_assert_eq!(peers(&table).iter().map(|peer| peer.subnet).collect::<BTreeSet<_>>(), live);
    }

    /// Of leases that exclude each other, a host that saw them made accepts the same as one that lists them
    /// after they were renewed.
    #[test]
    fn hosts_agree_on_conflicts(
        words in prop::collection::btree_map(0..KEYS.len(), (prop::sample::select(&ADDRESSES[..]), prop::sample::select(&MACS[..])), 0..8),
        order in any::<prop::sample::Index>(),
        renewals in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut words: Vec<_> = words.into_iter().collect();
        if !words.is_empty() {
            let at = order.index(words.len());
            words.rotate_left(at);
        }
        let (mut follower, mut content, mut revision) = (PeerTable::new(site(Kind::Vxlan)), Content::default(), 0);
        let renewed = renewals.iter().filter(|_| !words.is_empty()).map(|index| *index.get(&words));
        for (key, (ip, mac)) in words.iter().copied().chain(renewed) {
            revision += 1;
            let event = event(KEYS[key], &Word::Lease(ip, mac), revision);
            content.take(&event);
            follower.apply_event(&event);
        }
        let mut newcomer = PeerTable::new(site(Kind::Vxlan));
        newcomer.apply_snapshot(&content.snapshot(revision));
        prop_assert_eq!(peers(&follower), peers(&newcomer));
    }
}
