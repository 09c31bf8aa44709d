//! Somebody takes a host's lease away, or a host starts that should not.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases::Lease;
use flannel_tests::network::{Host, HostOptions, Place};
use rstest::rstest;

use crate::firewall::{let_through, turn_away};
use crate::scenario::{GRACE, STRANGER, Scenario, time_until};
use crate::sight::{VXLAN, all_know, learn, none_knows, own_key, paper_lease, peers, plan};

/// A lost lease stands again within this time: sooner than by the next listing, after a minute.
const PROMPT: Duration = Duration::from_secs(3);

fn delete(cluster: &Cluster, key: &str) {
    cluster.etcd.delete(key).unwrap();
}

fn revoke(cluster: &Cluster, key: &str) {
    let lease = cluster.etcd.get(key).unwrap().lease;
    cluster.etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]).unwrap();
}

fn overwrite(cluster: &Cluster, key: &str) {
    cluster.etcd.put(key, "{").unwrap();
}

#[rstest]
#[case::deleted("own key deleted", delete)]
#[case::revoked("own etcd lease revoked", revoke)]
#[case::overwritten("own key overwritten with junk", overwrite)]
fn own_lease(#[case] name: &str, #[case] take_away: fn(&Cluster, &str)) {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let key = own_key(&cluster, 0);
    Scenario::new(name).play(&mut cluster, |cluster| {
        let value = cluster.etcd.get(&key).unwrap().value;
        take_away(cluster, &key);
        let stands = || cluster.etcd.get(&key).is_ok_and(|entry| entry.value == value && entry.lease != 0);
        time_until("the lease to stand again", Instant::now(), PROMPT, stands)
    });
    cluster.members[0].daemon.check_running().unwrap();
}

#[test]
fn vanished_host() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let lease = paper_lease(200);
    Scenario::new("a peer's lease is deleted for good").play(&mut cluster, |cluster| {
        learn(cluster, &lease, PROMPT);
        let since = Instant::now();
        delete(cluster, &lease.key(PREFIX));
        let limit = GRACE + PROMPT;
        let first = time_until("a host to let it go", since, limit, || !all_know(cluster, &lease));
        assert!(first >= GRACE, "its lease might still have come back: {first:?}");
        time_until("every host to let it go", since, limit, || none_knows(cluster, &lease))
    });
    let successor = Lease { public_ip: [192, 168, 77, 201].into(), ..paper_lease(200) };
    Scenario::new("a peer's subnet goes over to another host").play(&mut cluster, |cluster| {
        learn(cluster, &lease, PROMPT);
        delete(cluster, &lease.key(PREFIX));
        successor.write(&cluster.etcd, PREFIX).unwrap();
        let (subnet, address) = (successor.subnet.to_string(), successor.public_ip.to_string());
        let follows = |daemon: &Daemon| peers(daemon).get(&subnet) == Some(&address);
        // Nobody waits for the first one to come back.
        time_until("the other host to be the peer", Instant::now(), GRACE * 9 / 10, || {
            cluster.members.iter().all(|member| follows(&member.daemon))
        })
    });
}

#[test]
fn short_time_to_live() {
    let plan = plan(VXLAN).with_flag("--subnet-lease-ttl=5s");
    let mut cluster = Cluster::start(&plan).unwrap();
    let keys = [0, 1].map(|member| own_key(&cluster, member));
    let outage = Duration::from_millis(1500);
    Scenario::new("leases of 5 s expire while etcd is away").with_outage(outage).with_drops(STRANGER).play(
        &mut cluster,
        |cluster| {
            turn_away(cluster);
            time_until("the leases to expire", Instant::now(), Duration::from_secs(10), || {
                keys.iter().all(|key| cluster.etcd.get(key).is_err())
            });
            let_through(cluster);
            let known = |cluster: &Cluster| {
                keys.iter().all(|key| cluster.etcd.get(key).is_ok())
                    && cluster.members.iter().all(|member| peers(&member.daemon).len() == 1)
            };
            time_until("the leases to stand again", Instant::now(), Duration::from_secs(4), || known(cluster))
        },
    );
}

#[test]
fn reservation() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let key = own_key(&cluster, 0);
    Scenario::new("own lease made a reservation, daemon restarted").play(&mut cluster, |cluster| {
        let value = cluster.etcd.get(&key).unwrap().value;
        cluster.etcd.put(&key, &value).unwrap();
        sleep(Duration::from_millis(300));
        let since = Instant::now();
        let member = &mut cluster.members[0];
        member.daemon.terminate().unwrap();
        member.daemon.restart().unwrap();
        assert_eq!(member.daemon.wait_ready().unwrap(), member.node.file);
        let recovery = since.elapsed();
        let entry = cluster.etcd.get(&key).unwrap();
        assert_eq!((entry.lease, entry.value), (0, value));
        recovery
    });
}

#[test]
fn two_hosts_with_one_address() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    Scenario::new("a second host with the same --public-ip").play(&mut cluster, |cluster| {
        let third = Host::new(&cluster.network, Place::Near, 3, HostOptions::default()).unwrap();
        let settings = settings(cluster, &["--public-ip=192.168.77.11"]);
        let (after, said) = refused(&third, "flanneld", settings, Duration::from_secs(2));
        let first = &cluster.members[0].node.host.namespace;
        let link = first.ip("-brief link show eth0").unwrap();
        let mac = link.split_whitespace().nth(2).unwrap();
        assert!(said.contains("192.168.77.11 is that of another host") && said.contains(mac), "{said}");
        after
    });
}

#[test]
fn second_daemon_of_a_network() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    Scenario::new("a second daemon on one host").play(&mut cluster, |cluster| {
        let host = &cluster.members[0].node.host;
        let (after, said) = refused(host, "second", settings(cluster, &[]), PROMPT);
        assert!(said.contains("another flanneld on this host serves the network"), "{said}");
        after
    });
}

fn settings(cluster: &Cluster, flags: &[&str]) -> Settings {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Settings { endpoint: cluster.etcd.url(), prefix: PREFIX.to_owned(), flags }
}

/// Starts a daemon that is to end by itself: how long that takes, and what it says.
fn refused(host: &Host, name: &str, settings: Settings, limit: Duration) -> (Duration, String) {
    let since = Instant::now();
    let mut daemon = Daemon::start_as(host, name, settings).unwrap();
    let status = daemon.wait_end(limit).unwrap();
    let after = since.elapsed();
    assert_eq!(status.code(), Some(1));
    (after, std::fs::read_to_string(daemon.log()).unwrap())
}
