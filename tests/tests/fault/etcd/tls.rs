//! etcd and its clients prove who they are.

use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::{Encryption, EtcdPlan};
use flannel_tests::network::{Host, HostOptions, Place};
use rstest::rstest;

use super::{RETURN, assert_kept, assert_running, own_leases, planned, said};
use crate::scenario::Scenario;
use crate::sight::{learn, paper_lease};

#[rstest]
#[case::authority_only("certificates of another authority (CA only)", Encryption::Server)]
#[case::both_ends("certificates of another authority (client certificates)", Encryption::Mutual)]
fn certificates_are_renewed(#[case] name: &str, #[case] encryption: Encryption) {
    let etcd = EtcdPlan { encryption, is_proxied: true, ..EtcdPlan::default() };
    let mut cluster = Cluster::start(&planned(etcd, 60)).unwrap();
    let leases = own_leases(&cluster);
    Scenario::new(name).play(&mut cluster, |cluster| {
        cluster.etcd.renew_certificates().unwrap();
        cluster.etcd.kill().unwrap();
        cluster.etcd.restart().unwrap();
        learn(cluster, &paper_lease(200), RETURN)
    });
    assert_kept(&cluster, &leases);
    assert_running(&mut cluster);
    let heads = cluster.etcd.proxy().unwrap().take_heads();
    assert!(heads.len() >= 4, "every daemon has connected twice: {heads:?}");
    assert!(heads.iter().all(|head| is_client_hello(head)), "plaintext: {heads:?}");
    plaintext_is_refused(&cluster);
}

fn plaintext_is_refused(cluster: &Cluster) {
    let host = Host::new(&cluster.network, Place::Near, 3, HostOptions::default()).unwrap();
    let mut settings = cluster.settings(&[]);
    settings.endpoint = settings.endpoint.replace("https://", "http://");
    let since = Instant::now();
    let mut daemon = Daemon::start(&host, settings).unwrap();
    assert_eq!(daemon.wait_end(Duration::from_secs(2)).unwrap().code(), Some(1));
    println!("http:// beside a TLS file: refused in {} ms", since.elapsed().as_millis());
    assert!(said(&daemon).contains("is plaintext although a TLS file is given"), "{}", said(&daemon));
    let heads = cluster.etcd.proxy().unwrap().take_heads();
    assert!(heads.iter().all(|head| is_client_hello(head)), "plaintext: {heads:?}");
}

/// Whether that is the beginning of TLS: a handshake of whatever version.
fn is_client_hello(head: &[u8]) -> bool {
    head.starts_with(&[22, 3]) && head.get(5) == Some(&1)
}
