//! A cloud that is slow, throttles, denies, fails or answers garbage: what forwards goes on forwarding, the trouble is told,
//! and once it is over all is in step again. The same of every cloud.

use std::fs;
use std::process::Command;
use std::time::Duration;

use flannel_tests::cloud::Mood;
use flannel_tests::cloud::scene::{self, Scene, wait_for_status, wait_in_step};
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, Node};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;

use super::SOON;

/// Plays every mood on two nodes that reach each other, of a cloud whose mood `set` sets.
pub fn play(nodes: &mut [(Daemon, Node)], set: impl Fn(Mood)) {
    let places: Vec<Node> = nodes.iter().map(|(_, node)| node.clone()).collect();
    let pairs = pod_pairs(&places.iter().collect::<Vec<_>>());
    for mood in [Mood::Throttling, Mood::Denying, Mood::Failing, Mood::Babbling] {
        set(mood);
        for (daemon, _) in nodes.iter_mut() {
            wait_for_status(daemon, &["sight of the cloud", "it is tried again"]).unwrap();
        }
        for (from, to) in &pairs {
            Ping::default().send(from, to).unwrap().check().unwrap();
        }
        set(Mood::Willing);
        nodes.iter_mut().for_each(|(daemon, _)| wait_in_step(daemon).unwrap());
    }
    set(Mood::Slow(Duration::from_secs(2)));
    std::thread::sleep(Duration::from_secs(5));
    nodes.iter_mut().for_each(|(daemon, _)| wait_in_step(daemon).unwrap());
    set(Mood::Willing);
    check_reached(&pairs).unwrap();
}

/// Checks that leases are those that stock flannel writes: without a word of the backend.
pub fn check_leases(scene: &Scene, hosts: &[Host]) {
    let leases = scene.etcd.list(&format!("{PREFIX}/subnets/")).unwrap();
    let mut values: Vec<String> = leases.into_iter().map(|lease| lease.value).collect();
    let mut expected: Vec<String> =
        hosts.iter().map(|host| format!(r#"{{"PublicIP":"{}","PublicIPv6":null}}"#, host.address)).collect();
    values.sort();
    expected.sort();
    assert_eq!(values, expected);
}

/// Checks that nothing secret is in what a daemon shows to those who may not have its keys.
pub fn check_secrets_kept(daemon: &Daemon) {
    let words = fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid().unwrap())).unwrap();
    for text in [fs::read_to_string(daemon.log()).unwrap(), scene::status(daemon).unwrap(), words] {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// Checks that nothing secret is in an archive for others to read.
pub fn check_sysdump(daemon: &Daemon) {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("dump.tar.gz");
    let state_file = daemon.state_file();
    // It is written a little after the daemon is ready.
    wait::until_true("the state file to be there", SOON, || state_file.exists()).unwrap();
    daemon.ctl(&format!("sysdump -w {} --state-file={}", archive.display(), state_file.display())).unwrap();
    let unpacked = Command::new("tar").arg("-xzOf").arg(&archive).output().unwrap();
    let text = String::from_utf8_lossy(&unpacked.stdout);
    assert!(text.contains("AccessKeySecret"), "the state file is in it: {text}");
    assert!(!text.contains("canary"), "{text}");
}
