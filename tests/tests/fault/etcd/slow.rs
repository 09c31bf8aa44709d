//! etcd answers slowly, in drops, or not at all.

use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::etcd::PREFIX;
use flannel_tests::etcd::{EtcdPlan, Manner};

use super::{RETURN, assert_kept, assert_running, hear, joined, newcomer, own_leases, planned, said};
use crate::scenario::{Scenario, time_until};
use crate::sight::{all_know, learn, paper_lease};

fn proxied() -> EtcdPlan {
    EtcdPlan { is_proxied: true, ..EtcdPlan::default() }
}

fn treat(cluster: &Cluster, manner: Manner) {
    cluster.etcd.proxy().unwrap().treat(manner);
}

#[test]
fn far_away() {
    let mut cluster = Cluster::start(&planned(proxied(), 9)).unwrap();
    let leases = own_leases(&cluster);
    let manner = Manner { latency: Duration::from_millis(800), ..Manner::default() };
    Scenario::new("etcd 800 ms away each way, a new host").play(&mut cluster, |cluster| {
        treat(cluster, manner);
        let since = Instant::now();
        let mut third = newcomer(cluster);
        let recovery = joined(cluster, &mut third, since, Duration::from_secs(25));
        assert!(cluster.etcd.proxy().unwrap().most_connections() <= 3, "one for each daemon");
        third.kill().unwrap();
        recovery
    });
    Scenario::new("etcd 800 ms away each way, a new lease")
        .play(&mut cluster, |cluster| learn(cluster, &paper_lease(200), RETURN));
    assert_kept(&cluster, &leases);
    assert_running(&mut cluster);
}

#[test]
fn drop_by_drop() {
    let mut cluster = Cluster::start(&planned(proxied(), 60)).unwrap();
    for number in 150..210 {
        let lease = paper_lease(number);
        cluster.etcd.put(&lease.key(PREFIX), &lease.value()).unwrap();
    }
    Scenario::new("62 leases listed at 1 kB/s").play(&mut cluster, |cluster| {
        treat(cluster, Manner { is_cut: true, ..Manner::default() });
        hear(cluster, &["the registry is away"], RETURN);
        cluster.etcd.proxy().unwrap().most_connections();
        let lease = paper_lease(210);
        lease.write(&cluster.etcd, PREFIX).unwrap();
        treat(cluster, Manner { rate: 1000, ..Manner::default() });
        let limit = Duration::from_secs(40);
        let recovery =
            time_until("every lease to be listed", Instant::now(), limit, || all_know(cluster, &lease));
        assert!(cluster.etcd.proxy().unwrap().most_connections() <= 4, "requests pile up");
        recovery
    });
    assert_running(&mut cluster);
}

#[test]
fn silent() {
    let mut cluster = Cluster::start(&planned(proxied(), 60)).unwrap();
    let leases = own_leases(&cluster);
    let mut third = None;
    Scenario::new("etcd takes connections and stays silent").play(&mut cluster, |cluster| {
        treat(cluster, Manner { is_silent: true, ..Manner::default() });
        cluster.etcd.proxy().unwrap().most_connections();
        let daemon = third.insert(newcomer(cluster));
        hear(cluster, &["the registry is away"], Duration::from_secs(15));
        let tells = "did not read the network configuration";
        time_until("the newcomer to tell", Instant::now(), RETURN, || said(daemon).contains(tells));
        assert!(cluster.etcd.proxy().unwrap().most_connections() <= 6, "connections pile up");
        treat(cluster, Manner::default());
        let since = Instant::now();
        joined(cluster, daemon, since, Duration::from_secs(15))
    });
    drop(third);
    assert_kept(&cluster, &leases);
    assert_running(&mut cluster);
}
