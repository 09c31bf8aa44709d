//! Three members: one stops, dies, or is cut off from the others.

use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::etcd::EtcdPlan;
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases::Lease;

use super::{assert_kept, assert_running, joined, newcomer, own_leases, planned};
use crate::scenario::{Scenario, time_until};
use crate::sight::{all_know, paper_lease};

/// A connection whose other end is silent is noticed after 5 s and 4 s more; then the daemon turns to another member.
const SILENCE: Duration = Duration::from_secs(15);
/// The others elect a leader within some seconds; then the daemon turns to one of them.
const ELECTION: Duration = Duration::from_secs(10);

#[test]
fn members_fail() {
    let etcd = EtcdPlan { is_cluster: true, ..EtcdPlan::default() };
    let mut cluster = Cluster::start(&planned(etcd, 24)).unwrap();
    cluster.etcd.make_leader(serving(&cluster)).unwrap();
    let leases = own_leases(&cluster);

    Scenario::new("leader of three stopped, which serves the daemons").play(&mut cluster, |cluster| {
        let leader = cluster.etcd.leader().unwrap();
        cluster.etcd.freeze_member(leader, true).unwrap();
        learn_without(cluster, leader, &paper_lease(200), SILENCE)
    });
    let mut third = None;
    Scenario::new("a new host while the first endpoint is silent").play(&mut cluster, |cluster| {
        let since = Instant::now();
        let daemon = third.insert(newcomer(cluster));
        let recovery = joined(cluster, daemon, since, ELECTION);
        cluster.etcd.freeze_member(0, false).unwrap();
        recovery
    });
    drop(third);

    Scenario::new("leader of three killed, which serves the daemons").play(&mut cluster, |cluster| {
        let member = serving(cluster);
        time_until("another leader", Instant::now(), ELECTION, || cluster.etcd.make_leader(member).is_ok());
        cluster.etcd.kill_member(member).unwrap();
        let recovery = learn_without(cluster, member, &paper_lease(201), ELECTION);
        cluster.etcd.restart().unwrap();
        recovery
    });

    Scenario::new("member cut off from the others, which serves the daemons").play(&mut cluster, |cluster| {
        let member = serving(cluster);
        let namespace = cluster.etcd.namespace_of(member).unwrap();
        let nft = |command: &str| namespace.run("nft", command).unwrap();
        nft("add table ip fault");
        for hook in ["input", "output"] {
            nft(&format!("add chain ip fault {hook} {{ type filter hook {hook} priority 0 ; }}"));
            nft(&format!("add rule ip fault {hook} tcp dport 2380 drop"));
            nft(&format!("add rule ip fault {hook} tcp sport 2380 drop"));
        }
        let recovery = learn_without(cluster, member, &paper_lease(202), SILENCE);
        nft("delete table ip fault");
        recovery
    });
    assert_kept(&cluster, &leases);
    assert_running(&mut cluster);
}

/// The member the first host is connected to.
fn serving(cluster: &Cluster) -> usize {
    let client = cluster.members[0].node.host.address.to_string();
    let serves = |member: &usize| {
        let namespace = cluster.etcd.namespace_of(*member).unwrap();
        namespace.run("ss", "-Htn state established sport = :2379").unwrap().contains(&client)
    };
    (0..3).find(serves).unwrap()
}

/// Writes a lease as soon as a member but this one takes it, and waits until every daemon has its peer.
fn learn_without(cluster: &Cluster, member: usize, lease: &Lease, limit: Duration) -> Duration {
    let since = Instant::now();
    let url = cluster.etcd.url().split(',').nth((member + 1) % 3).unwrap().to_owned();
    let (key, value) = (lease.key(PREFIX), lease.value());
    let put = ["--endpoints", &url, "--command-timeout", "1s", "put", "--", &key, &value];
    time_until("the others to take a write", since, limit, || cluster.etcd.ctl(&put).is_ok());
    time_until("a new lease to be known", since, limit, || all_know(cluster, lease))
}
