//! What a running daemon is told by `flannelctl`.

use std::fs;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::{EtcdPlan, PREFIX};
use flannel_tests::leases::Lease;
use flannel_tests::network::Place;
use flannel_tests::wait::until_true;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{ask, ask_json, command};
use crate::{run, text};

const SOON: Duration = Duration::from_secs(5);
const OTHER_PASSWORD: &str = "second-canary";

fn plan(hosts: usize) -> Plan {
    Plan { places: vec![Place::Near; hosts], ..Plan::new(r#"{"Type":"vxlan"}"#) }
}

fn log(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.log()).unwrap()
}

fn lease(number: u8) -> Lease {
    Lease {
        subnet: format!("10.5.{number}.0/24").parse().unwrap(),
        public_ip: [192, 168, 77, number].into(),
        vtep_mac: Some(format!("02:00:00:00:01:{number:02x}")),
    }
}

fn knows(member: &Member, subnet: &str) -> bool {
    member.daemon.ctl("peers").is_ok_and(|peers| peers.contains(subnet))
}

#[test]
fn the_log_level_is_told_and_changed() {
    let cluster = Cluster::start(&plan(1)).unwrap();
    let member = &cluster.members[0];
    let (code, level) = ask_json(member, &["log-level"]);
    assert_eq!((code, level), (Some(0), json!({"level": "info", "told": "info"})));
    assert!(!log(&member.daemon).contains("DEBUG"));
    let (code, level) = ask_json(member, &["log-level", "debug"]);
    assert_eq!((code, level), (Some(0), json!({"level": "debug", "told": "info"})));
    lease(200).write(&cluster.etcd, PREFIX).unwrap();
    until_true("a line for those who look for faults", SOON, || log(&member.daemon).contains("DEBUG"))
        .unwrap();
    until_true("the peer to be known", SOON, || knows(member, "10.5.200.0/24")).unwrap();
    let (code, told, _) = ask(member, &["log-level", "told"]);
    assert_eq!((code, told.as_str()), (Some(0), "info\n"));
    let before = log(&member.daemon).matches("DEBUG").count();
    lease(201).write(&cluster.etcd, PREFIX).unwrap();
    until_true("the peer to be known", SOON, || knows(member, "10.5.201.0/24")).unwrap();
    assert_eq!(log(&member.daemon).matches("DEBUG").count(), before);
    let (code, _, said) = ask(member, &["log-level", "loud"]);
    assert!(code == Some(2) && said.contains("debug, trace, told"), "{said}");
}

#[test]
fn files_are_read_again_and_a_good_connection_is_kept() {
    let etcd = EtcdPlan { is_guarded: true, is_proxied: true, ..EtcdPlan::default() };
    let cluster = Cluster::start(&Plan { etcd, ..plan(1) }).unwrap();
    let member = &cluster.members[0];
    let file = cluster.etcd.password_file();
    let good = fs::read_to_string(&file).unwrap();

    fs::write(&file, "wrong-canary").unwrap();
    let (code, told, said) = ask(member, &["reload"]);
    assert_eq!((code, told.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("nothing is changed") && said.contains("invalid user ID or password"), "{said}");
    assert!(!said.contains("wrong-canary"), "{said}");
    lease(200).write(&cluster.etcd, PREFIX).unwrap();
    until_true("the peer to be known", SOON, || knows(member, "10.5.200.0/24")).unwrap();
    assert!(!log(&member.daemon).contains("the registry is away"), "{}", log(&member.daemon));

    fs::write(&file, &good).unwrap();
    cluster.etcd.change_password(OTHER_PASSWORD).unwrap();
    fs::write(&file, OTHER_PASSWORD).unwrap();
    cluster.etcd.proxy().unwrap().take_heads();
    let (code, told, said) = ask(member, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(told.contains(&format!("read {}", file.display())), "{told}");
    // One connection to try the files, and one to go on with.
    let mut connections = 0;
    until_true("another connection", SOON, || {
        connections += cluster.etcd.proxy().unwrap().take_heads().len();
        connections >= 2
    })
    .unwrap();
    lease(201).write(&cluster.etcd, PREFIX).unwrap();
    until_true("the peer to be known", SOON, || knows(member, "10.5.201.0/24")).unwrap();
    assert!(!log(&member.daemon).contains("the registry is away"), "{}", log(&member.daemon));
}

/// What certificate and configuration tools send means the same as `flannelctl reload`.
#[test]
fn sighup_has_files_read_again() {
    let etcd = EtcdPlan { is_guarded: true, is_proxied: true, ..EtcdPlan::default() };
    let cluster = Cluster::start(&Plan { etcd, ..plan(1) }).unwrap();
    let member = &cluster.members[0];
    let file = cluster.etcd.password_file();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "wrong-canary").unwrap();
    member.daemon.signal(Signal::SIGHUP).unwrap();
    let says = |what: &str| log(&member.daemon).contains(what);
    until_true("it to refuse", SOON, || says("SIGHUP: etcd does not answer with what the files say now"))
        .unwrap();
    fs::write(&file, &good).unwrap();
    cluster.etcd.proxy().unwrap().take_heads();
    member.daemon.signal(Signal::SIGHUP).unwrap();
    until_true("it to connect anew", SOON, || {
        says("read the files for etcd again") && !cluster.etcd.proxy().unwrap().take_heads().is_empty()
    })
    .unwrap();
    lease(200).write(&cluster.etcd, PREFIX).unwrap();
    until_true("the peer to be known", SOON, || knows(member, "10.5.200.0/24")).unwrap();
    assert!(!says("the registry is away"), "{}", log(&member.daemon));
}

#[test]
fn peers_of_a_mass_deletion_are_released() {
    let cluster = Cluster::start(&plan(1).with_flag("--mass-delete-hold=300s")).unwrap();
    let member = &cluster.members[0];
    assert_eq!(ask_json(member, &["release"]), (Some(0), json!({"peers": 0})));
    for number in 200..212 {
        lease(number).write(&cluster.etcd, PREFIX).unwrap();
    }
    let count = || member.daemon.ctl_json("peers").unwrap()["peers"].as_array().unwrap().len();
    until_true("every peer to be known", SOON, || count() == 12).unwrap();
    cluster.etcd.ctl(&["del", "--prefix", &format!("{PREFIX}/subnets/10.5.2")]).unwrap();
    let is_held = || log(&member.daemon).contains("a large part of the cluster vanished at once");
    until_true("them to be held", SOON, is_held).unwrap();
    assert_eq!(count(), 12);
    let (code, told, said) = ask(member, &["release"]);
    assert_eq!((code, told.as_str()), (Some(0), "let 12 peers go\n"), "{said}");
    assert_eq!(count(), 0);
    assert_eq!(ask_json(member, &["release"]), (Some(0), json!({"peers": 0})));
}

#[test]
fn a_host_leaves_and_comes_back() {
    let mut cluster = Cluster::start(&plan(2)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let own = cluster.members[0].node.file.subnet;
    let key = format!("{PREFIX}/subnets/{}-24", own.ip());
    let claim = format!("{PREFIX}/hosts/192.168.77.11");
    assert!(cluster.etcd.get(&key).is_ok() && cluster.etcd.get(&claim).is_ok());

    // Nobody is there to be asked back.
    let mut unsure = command(&cluster.members[0], &["leave"]);
    let output = unsure.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    cluster.members[0].daemon.check_running().unwrap();

    let (code, left) = ask_json(&cluster.members[0], &["leave", "--yes"]);
    let expected = json!({"subnets": [own.to_string()], "lease": "deleted", "claim": "deleted"});
    assert_eq!((code, left), (Some(0), expected));
    assert_eq!(cluster.members[0].daemon.wait_end(SOON).unwrap().code(), Some(0));
    assert!(cluster.etcd.get(&key).is_err() && cluster.etcd.get(&claim).is_err());
    let terms = cluster.etcd.ctl(&["lease", "list", "-w", "json"]).unwrap();
    println!("terms that are left: {terms}");
    let other = &cluster.members[1];
    until_true("the other host to forget it", SOON, || !knows(other, &own.to_string())).unwrap();

    // What is in the kernel stays, and shows it.
    let member = &cluster.members[0];
    let (code, status) = ask_json(member, &["status"]);
    assert_eq!((code, &status["attached"], &status["peers"]), (Some(0), &true.into(), &1.into()), "{status}");
    assert_eq!(status["daemon"], serde_json::Value::Null);
    let (code, _, said) = ask(member, &["leave", "--yes"]);
    assert!(code == Some(1) && said.contains("no flanneld answers at /run/flannel/"), "{said}");

    let member = &mut cluster.members[0];
    member.daemon.restart().unwrap();
    assert_eq!(member.daemon.wait_ready().unwrap().subnet, own);
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

#[test]
fn a_reservation_outlasts_the_host() {
    let mut cluster = Cluster::start(&plan(1)).unwrap();
    let own = cluster.members[0].node.file.subnet;
    let key = format!("{PREFIX}/subnets/{}-24", own.ip());
    let lease = cluster.etcd.get(&key).unwrap();
    cluster.etcd.put(&key, &lease.value).unwrap();
    let member = &cluster.members[0];
    let is_reserved = || ask_json(member, &["status"]).1["daemon"]["lease"]["expires_seconds"].is_null();
    until_true("the daemon to hear of the reservation", SOON, is_reserved).unwrap();
    let (code, told, said) = ask(member, &["leave", "--yes"]);
    assert!(code == Some(0) && told.contains("kept the reservation"), "{told}{said}");
    assert_eq!(cluster.members[0].daemon.wait_end(SOON).unwrap().code(), Some(0));
    assert_eq!(cluster.etcd.get(&key).unwrap().value, lease.value);
}

#[test]
fn a_host_that_cannot_leave_stays() {
    let mut cluster = Cluster::start(&plan(1)).unwrap();
    cluster.etcd.kill().unwrap();
    let (code, told, said) = ask(&cluster.members[0], &["leave", "--yes"]);
    assert_eq!((code, told.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("the lease cannot be withdrawn, and stays held"), "{said}");
    cluster.members[0].daemon.check_running().unwrap();
    cluster.etcd.restart().unwrap();
    let subnet = cluster.members[0].node.file.subnet;
    let (code, status) = ask_json(&cluster.members[0], &["status", "--wait", "--timeout=20"]);
    assert_eq!(
        (code, &status["daemon"]["lease"]["subnets"][0]),
        (Some(0), &subnet.to_string().into()),
        "{status}"
    );
}

#[test]
fn times_that_never_end_are_times() {
    let cluster = Cluster::start(&plan(1)).unwrap();
    let member = &cluster.members[0];
    let forever = u64::MAX.to_string();
    for words in [
        &["status", "--wait", "--timeout", &forever][..],
        &["trace", "--count=0", "--duration", &forever],
        &["capture", "--write=-", "--count=0", "--duration", &forever],
    ] {
        let output = command(member, words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_order_has_a_manual_page_and_completions() {
    let bash = text(&run("flannelctl", &["completions", "bash"]).stdout);
    for verb in ["log-level", "reload", "release", "leave"] {
        let output = run("flannelctl", &["man", &format!("flannelctl-{verb}")]);
        let page = text(&output.stdout);
        assert!(output.status.success() && page.contains(&format!(".TH flannelctl-{verb} 1")), "{page}");
        assert!(bash.contains(verb), "{verb}");
        let help = text(&run("flannelctl", &[verb, "--help"]).stdout);
        assert!(help.contains("Usage: flannelctl"), "{help}");
    }
}
