//! What the service manager is told, over its socket.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::Place;
use flannel_tests::wait::until_true;
use nix::sys::signal::Signal;

/// How long it may take until something is told.
const SOON: Duration = Duration::from_secs(10);
/// Within which time a sign of life is expected.
const LIMIT: Duration = Duration::from_millis(600);

fn plan() -> Plan {
    Plan { places: vec![Place::Near], ..Plan::new(r#"{"Type":"vxlan"}"#) }
}

#[test]
fn it_is_told_what_is_waited_for_and_what_differs() {
    let plan = plan();
    let mut cluster = Cluster::start(&plan).unwrap();
    let config = format!("{PREFIX}/config");
    cluster.etcd.delete(&config).unwrap();
    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    assert!(daemon.notified().contains(&"STOPPING=1".to_owned()));
    daemon.restart().unwrap();
    let mut told = Vec::new();
    until_true("it to say what it waits for", SOON, || {
        told.extend(daemon.notified());
        told.iter().any(|line| line.starts_with("STATUS=not ready yet, pending: network configuration read"))
    })
    .unwrap();
    assert!(!told.contains(&"READY=1".to_owned()), "{told:?}");
    cluster.etcd.put(&config, &plan.config).unwrap();
    until_true("it to be ready", SOON, || {
        told.extend(daemon.notified());
        told.contains(&"READY=1".to_owned()) && told.contains(&"STATUS=ready".to_owned())
    })
    .unwrap();
    cluster.etcd.put(&config, &plan.config.replace("10.5.", "10.6.")).unwrap();
    until_true("it to say that it serves another configuration", SOON, || {
        told.extend(daemon.notified());
        told.iter().any(|line| {
            line.starts_with("STATUS=ready; ") && line.ends_with("Network from 10.5.0.0/16 to 10.6.0.0/16")
        })
    })
    .unwrap();
    assert!(!told.iter().any(|line| line.starts_with("WATCHDOG")), "nobody expects signs of life: {told:?}");
}

#[test]
fn signs_of_life_end_when_the_daemon_is_stuck() {
    let mut cluster = Cluster::start(&plan()).unwrap();
    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    daemon.watched_every(LIMIT);
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    // Read as it comes: what does not fit into the socket would wait, and come later.
    let signs = |daemon: &Daemon| {
        let _former = daemon.notified();
        let end = Instant::now() + 5 * LIMIT;
        let mut count = 0;
        while Instant::now() < end {
            sleep(LIMIT / 20);
            count += daemon.notified().iter().filter(|line| *line == "WATCHDOG=1").count();
        }
        count
    };
    let count = signs(daemon);
    assert!((8..=16).contains(&count), "{count} signs in five times the limit");
    daemon.suspend().unwrap();
    assert_eq!(signs(daemon), 0);
    daemon.signal(Signal::SIGCONT).unwrap();
    assert!(signs(daemon) > 0);
}
