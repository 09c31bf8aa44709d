//! etcd goes away, or seems to be there and is not: packets flow on, and what was missed is learned.

mod access;
mod full;
mod members;
mod slow;
mod tls;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Member, Plan};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::etcd::{Entry, EtcdPlan};
use flannel_tests::leases::Lease;
use flannel_tests::network::{Host, HostOptions, Place};
use flannel_tests::wait;
use nix::sys::signal::Signal;
use rstest::rstest;

use crate::firewall::{let_through, silence_connections, turn_away};
use crate::scenario::{GRACE, STRANGER, Scenario, time_until};
use crate::sight::{UDP, VXLAN, all_know, learn, none_knows, own_key, paper_lease, peers, plan};

/// A daemon that lost etcd waits for 2 s at most before it tries again, and needs a little more.
const RETURN: Duration = Duration::from_secs(4);
/// How soon a change from the watch is in the maps: sooner than by the next listing, after a minute.
const PROMPT: Duration = Duration::from_secs(2);

#[rstest]
#[case::vxlan("etcd killed for 8 s (vxlan)", VXLAN, paper_lease(200))]
#[case::udp("etcd killed for 8 s (udp)", UDP, Lease { vtep_mac: None, ..paper_lease(200) })]
fn death(#[case] name: &str, #[case] backend: &str, #[case] lease: Lease) {
    let mut cluster = Cluster::start(&plan(backend)).unwrap();
    Scenario::new(name).play(&mut cluster, |cluster| {
        cluster.etcd.kill().unwrap();
        sleep(Duration::from_secs(8));
        cluster.etcd.restart().unwrap();
        learn(cluster, &lease, RETURN)
    });
    assert_running(&mut cluster);
}

#[test]
fn silent_death_of_its_connections() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    Scenario::new("connections to etcd dropped silently").play(&mut cluster, |cluster| {
        silence_connections(cluster);
        learn(cluster, &paper_lease(200), Duration::from_secs(15))
    });
}

#[test]
fn compaction() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let lease = paper_lease(200);
    Scenario::new("compaction under a watch").play(&mut cluster, |cluster| {
        compact(cluster);
        learn(cluster, &lease, PROMPT)
    });
    Scenario::new("a lease deleted and compacted away while etcd is away").play(&mut cluster, |cluster| {
        turn_away(cluster);
        cluster.etcd.delete(&lease.key(PREFIX)).unwrap();
        compact(cluster);
        let_through(cluster);
        let limit = RETURN + GRACE;
        time_until("the deleted lease to be gone", Instant::now(), limit, || none_knows(cluster, &lease))
    });
}

#[test]
fn restored() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let (kept, written_later) = (paper_lease(200), paper_lease(201));
    learn(&cluster, &kept, PROMPT);
    save_without_own_lease(&cluster);
    learn(&cluster, &written_later, PROMPT);
    cluster.etcd.delete(&kept.key(PREFIX)).unwrap();
    // Every daemon knows more of the history than it has listed.
    time_until("a deletion to be known", Instant::now(), GRACE + PROMPT, || none_knows(&cluster, &kept));
    let scenario = Scenario::new("etcd restored, own lease and more missing");
    scenario.until_mended().with_drops(STRANGER).play(&mut cluster, |cluster| {
        cluster.etcd.restore().unwrap();
        let key = own_key(cluster, 0);
        time_until("the leases to be those of the past", Instant::now(), RETURN + GRACE, || {
            all_know(cluster, &kept)
                && none_knows(cluster, &written_later)
                && cluster.etcd.get(&key).is_ok()
                && cluster.members.iter().all(|member| peers(&member.daemon).len() == 2)
        })
    });
    assert_running(&mut cluster);
}

/// Saves etcd at a moment at which the first host has no lease.
fn save_without_own_lease(cluster: &Cluster) {
    let daemon = &cluster.members[0].daemon;
    let key = own_key(cluster, 0);
    daemon.suspend().unwrap();
    cluster.etcd.delete(&key).unwrap();
    cluster.etcd.save().unwrap();
    daemon.signal(Signal::SIGCONT).unwrap();
    let stands = || cluster.etcd.get(&key).is_ok() && peers(&cluster.members[1].daemon).len() == 2;
    time_until("the lease to stand again", Instant::now(), RETURN, stands);
}

/// Two hosts, and an etcd that is like that. Leases last for this number of seconds, and are renewed after a third of
/// that.
fn planned(etcd: EtcdPlan, ttl: u8) -> Plan {
    Plan { etcd, ..plan(VXLAN) }.with_flag(&format!("--subnet-lease-ttl={ttl}s"))
}

/// The leases of the members.
fn own_leases(cluster: &Cluster) -> Vec<Entry> {
    // While members of etcd agree on a new leader, nobody answers.
    let entry = |member| {
        let key = own_key(cluster, member);
        wait::until("etcd to answer", Duration::from_secs(15), || cluster.etcd.get(&key)).unwrap()
    };
    (0..cluster.members.len()).map(entry).collect()
}

/// Fails if one of these leases has been away since.
fn assert_kept(cluster: &Cluster, before: &[Entry]) {
    let created = |entries: &[Entry]| entries.iter().map(|entry| entry.create_revision).collect::<Vec<_>>();
    assert_eq!(created(&own_leases(cluster)), created(before), "a lease was lost");
}

fn assert_running(cluster: &mut Cluster) {
    for member in &mut cluster.members {
        member.daemon.check_running().unwrap();
    }
}

/// Plugs in another host, h3, and starts its daemon.
fn newcomer(cluster: &Cluster) -> Daemon {
    let host = Host::new(&cluster.network, Place::Near, 3, HostOptions::default()).unwrap();
    Daemon::start(&host, cluster.settings(&[])).unwrap()
}

/// Waits until the newcomer is ready, and everybody's peer.
fn joined(cluster: &Cluster, newcomer: &mut Daemon, since: Instant, limit: Duration) -> Duration {
    let subnet = newcomer.wait_ready().unwrap().subnet.to_string();
    let knows = |member: &Member| peers(&member.daemon).contains_key(&subnet);
    time_until("a new host to be known", since, limit, || cluster.members.iter().all(knows))
}

/// What a daemon has said so far.
fn said(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.log()).unwrap()
}

/// Waits until every daemon has said each of these.
fn hear(cluster: &Cluster, words: &[&str], limit: Duration) {
    let says = |member: &Member| words.iter().all(|words| said(&member.daemon).contains(words));
    time_until(&format!("every daemon to say {words:?}"), Instant::now(), limit, || {
        cluster.members.iter().all(says)
    });
}

/// Compacts the whole history away.
fn compact(cluster: &Cluster) {
    cluster.etcd.put("/elsewhere", "").unwrap();
    let revision = cluster.etcd.revision().unwrap();
    cluster.etcd.ctl(&["compact", &revision.to_string()]).unwrap();
}
