//! etcd goes away, or seems to be there and is not: packets flow on, and what was missed is learned.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, PREFIX};
use flannel_tests::leases::Lease;
use rstest::rstest;

use crate::firewall::{let_through, silence_connections, turn_away};
use crate::scenario::{Scenario, time_until};
use crate::sight::{UDP, VXLAN, learn, none_knows, paper_lease, plan};

/// For so long at most a daemon that lost etcd waits before it tries again, and a little more.
const RETURN: Duration = Duration::from_secs(3);
/// How soon what is told by the watch is in the maps.
const PROMPT: Duration = Duration::from_millis(500);

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
    assert!(cluster.members.iter_mut().all(|member| member.daemon.check_running().is_ok()));
}

#[test]
fn silent_death_of_its_connections() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    Scenario::new("connections to etcd dropped silently").play(&mut cluster, |cluster| {
        silence_connections(cluster);
        learn(cluster, &paper_lease(200), Duration::from_secs(12))
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
        time_until("the deleted lease to be gone", Instant::now(), RETURN, || none_knows(cluster, &lease))
    });
}

/// Compacts the whole history away.
fn compact(cluster: &Cluster) {
    let key = "/elsewhere";
    cluster.etcd.put(key, "").unwrap();
    let revision = cluster.etcd.get(key).unwrap().mod_revision;
    cluster.etcd.ctl(&["compact", &revision.to_string()]).unwrap();
}
