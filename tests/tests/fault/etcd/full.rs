//! etcd has no space left.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::etcd::EtcdPlan;

use super::{assert_kept, assert_running, joined, newcomer, own_leases, planned, said};
use crate::scenario::{Scenario, time_until};

/// Bytes that etcd may use.
const QUOTA: usize = 4 << 20;
/// So long a lease lasts, in seconds.
const TTL: u8 = 6;

#[test]
fn no_space() {
    let flags = vec![format!("--quota-backend-bytes={QUOTA}")];
    let mut cluster = Cluster::start(&planned(EtcdPlan { flags, ..EtcdPlan::default() }, TTL)).unwrap();
    let leases = own_leases(&cluster);
    let mut third = None;
    Scenario::new("etcd without space for longer than a lease lasts").play(&mut cluster, |cluster| {
        fill(cluster);
        let daemon = third.insert(newcomer(cluster));
        // The newcomer cannot write; the others need not.
        let remedy = ["database space exceeded", "etcdctl alarm disarm"];
        let tells = || remedy.iter().all(|words| said(daemon).contains(words));
        time_until("the newcomer to tell the remedy", Instant::now(), Duration::from_secs(5), tells);
        sleep(Duration::from_secs(u64::from(TTL) + 2));
        assert_kept(cluster, &leases);
        empty(cluster);
        joined(cluster, daemon, Instant::now(), Duration::from_secs(7))
    });
    drop(third);
    assert_kept(&cluster, &leases);
    assert_running(&mut cluster);
}

fn fill(cluster: &Cluster) {
    let value = vec![b'x'; 1 << 20];
    let is_full = |number: usize| {
        let put = cluster.etcd.put_bytes(&format!("/elsewhere/{number}"), &value);
        put.is_err_and(|error| error.to_string().contains("database space exceeded"))
    };
    assert!((0..8).any(is_full), "etcd has still space");
    assert!(cluster.etcd.ctl(&["alarm", "list"]).unwrap().contains("NOSPACE"));
}

/// What the error advises.
fn empty(cluster: &Cluster) {
    cluster.etcd.ctl(&["del", "--prefix", "/elsewhere"]).unwrap();
    let revision = cluster.etcd.revision().unwrap();
    cluster.etcd.ctl(&["compact", &revision.to_string()]).unwrap();
    cluster.etcd.ctl(&["defrag"]).unwrap();
    cluster.etcd.ctl(&["alarm", "disarm"]).unwrap();
}
