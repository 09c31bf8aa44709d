//! etcd lets the daemons' user in no more, or to less.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::Cluster;
use flannel_tests::etcd::PREFIX;
use flannel_tests::etcd::{EtcdPlan, PASSWORD, USER};

use super::{RETURN, assert_kept, assert_running, hear, own_leases, planned, said};
use crate::scenario::{Scenario, time_until};
use crate::sight::{learn, paper_lease};

const OTHER_PASSWORD: &str = "second-canary";

fn guarded(flags: &[&str]) -> EtcdPlan {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    EtcdPlan { is_guarded: true, flags, ..EtcdPlan::default() }
}

fn ctl(cluster: &Cluster, command: &str) {
    cluster.etcd.ctl(&command.split(' ').collect::<Vec<_>>()).unwrap();
}

/// Makes every daemon connect and log in again.
fn restart(cluster: &mut Cluster) {
    cluster.etcd.kill().unwrap();
    cluster.etcd.restart().unwrap();
}

#[test]
fn permissions_and_passwords_change() {
    let mut cluster = Cluster::start(&planned(guarded(&[]), 6)).unwrap();
    let leases = own_leases(&cluster);
    Scenario::new("permission revoked for longer than a lease lasts").play(&mut cluster, |cluster| {
        ctl(cluster, &format!("role revoke-permission {USER} {PREFIX}/ --prefix=true"));
        restart(cluster);
        let whom = format!("the user {USER} ");
        let grant = format!("etcdctl role grant-permission ROLE --prefix=true readwrite {PREFIX}/");
        hear(cluster, &[&whom, &grant], RETURN);
        sleep(Duration::from_secs(8));
        assert_kept(cluster, &leases);
        ctl(cluster, &format!("role grant-permission {USER} --prefix=true readwrite {PREFIX}/"));
        learn(cluster, &paper_lease(200), RETURN)
    });
    Scenario::new("password changed").play(&mut cluster, |cluster| {
        cluster.etcd.change_password(OTHER_PASSWORD).unwrap();
        hear(cluster, &["invalid user ID or password", &format!("the user {USER}")], Duration::from_secs(6));
        fs::write(cluster.etcd.password_file(), OTHER_PASSWORD).unwrap();
        let since = Instant::now();
        let before = own_leases(cluster);
        let written =
            || own_leases(cluster).iter().zip(&before).all(|(now, old)| now.mod_revision > old.mod_revision);
        time_until("the leases to be renewed", since, Duration::from_secs(6), written);
        learn(cluster, &paper_lease(201), RETURN);
        since.elapsed()
    });
    Scenario::new("access control off and on again").play(&mut cluster, |cluster| {
        ctl(cluster, "auth disable");
        restart(cluster);
        learn(cluster, &paper_lease(202), RETURN);
        ctl(cluster, "auth enable");
        // Until the next renewal nobody asks for anything.
        sleep(Duration::from_secs(3));
        learn(cluster, &paper_lease(203), RETURN)
    });
    assert_kept(&cluster, &leases);
    for member in &cluster.members {
        let said = said(&member.daemon);
        assert!(
            !said.contains(PASSWORD) && !said.contains(OTHER_PASSWORD),
            "a password is in the log: {said}"
        );
    }
    assert_running(&mut cluster);
}

#[test]
fn tokens_expire() {
    let mut cluster = Cluster::start(&planned(guarded(&["--auth-token-ttl=1"]), 9)).unwrap();
    let leases = own_leases(&cluster);
    Scenario::new("tokens expire between requests").play(&mut cluster, |cluster| {
        sleep(Duration::from_secs(7));
        learn(cluster, &paper_lease(200), RETURN)
    });
    assert_kept(&cluster, &leases);
    let away = |daemon| said(daemon).contains("the registry is away");
    assert!(!cluster.members.iter().any(|member| away(&member.daemon)));
    assert_running(&mut cluster);
}
