//! Tables are sorted, go without headers and are watched, whatever they show.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases::Lease;
use flannel_tests::wait::until_true;
use serde_json::Value;

use super::{ask, ask_json, command, state_file};
use crate::{run, text};

const VERBS: [&[&str]; 6] =
    [&["peers"], &["leases"], &["counters", "--all"], &["drops"], &["features"], &["verify"]];

#[test]
fn unknown_columns_are_refused_and_the_columns_are_named() {
    for verb in VERBS {
        let output = run("flannelctl", &[verb, &["--sort", "size-of-shoe"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {said}");
        assert!(said.contains("[possible values: "), "{verb:?}: {said}");
    }
    let help = text(&run("flannelctl", &["peers", "--help"]).stdout);
    assert!(help.contains("last-seen") && help.contains("--watch[=<SECONDS>]"), "{help}");
}

#[test]
fn peers_are_sorted_for_people_and_programs_and_go_without_headers() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let member = &cluster.members[0];
    for number in [1, 2, 250] {
        let lease = Lease {
            subnet: format!("10.5.{number}.0/24").parse().unwrap(),
            public_ip: [192, 168, 77, 255 - number].into(),
            vtep_mac: Some(format!("02:00:00:00:01:{number:02x}")),
        };
        lease.write(&cluster.etcd, PREFIX).unwrap();
    }
    let peers = |words: &[&str]| -> Vec<String> {
        let (_, answer) = ask_json(member, &[&["peers"], words].concat());
        let peers = answer["peers"].as_array().unwrap();
        peers.iter().map(|peer| peer["public_ip"].as_str().unwrap().to_owned()).collect()
    };
    until_true("every peer to be known", std::time::Duration::from_secs(10), || peers(&[]).len() == 4)
        .unwrap();
    let by_address = ["192.168.77.5", "192.168.77.12", "192.168.77.253", "192.168.77.254"];
    assert_eq!(peers(&["--sort=public-ip"]), by_address);
    assert_eq!(peers(&["--sort=sent"])[0], "192.168.77.12", "to it alone anything was sent");
    assert_eq!(peers(&["--sort", "last-seen"])[0], "192.168.77.12");

    let (_, with, _) = ask(member, &["peers", "--sort=public-ip"]);
    let (_, without, _) = ask(member, &["peers", "--sort=public-ip", "--no-headers"]);
    assert_eq!((with.lines().count(), without.lines().count()), (5, 4), "{with}{without}");
    let addresses: Vec<&str> = without.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(addresses, by_address);
    let source = state_file(member, 4);
    for words in [
        &["leases", &source, "--sort=public-ip"][..],
        &["verify", &source, "--sort=kind"],
        &["features", "--sort=there"],
        &["counters", "--sort=packets"],
        &["drops", "--sort=reason"],
        &["maps", "dump", "sources", "--sort=address"],
    ] {
        let (code, table, said) = ask(member, &[words, &["--no-headers"]].concat());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        for header in ["SUBNET", "FAULT", "KIND", "HOOK", "ADDRESS"] {
            assert!(!table.contains(header), "{words:?}: {table}");
        }
    }
    let (_, counters) = ask_json(member, &["counters", "--sort=packets"]);
    let packets: Vec<u64> =
        counters["counters"].as_array().unwrap().iter().map(|one| one["packets"].as_u64().unwrap()).collect();
    assert!(packets.len() > 2 && packets.is_sorted_by(|a, b| a >= b), "{packets:?}");
}

#[test]
fn whatever_is_a_table_is_watched_and_outlives_the_daemon() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let source = state_file(&cluster.members[0], 1);
    for (words, member_of_answer) in [
        (&["status"][..], "daemon"),
        (&["peers"], "rates"),
        (&["peers", "192.168.77.12"], "kernel"),
        (&["leases", &source], "leases"),
        (&["counters", "--all"], "rates"),
        (&["drops"], "rates"),
        (&["verify", &source], "equal"),
        (&["features"], "used"),
        (&["maps", "dump", "SOURCES"], "SOURCES"),
    ] {
        let words = [&["-o", "json"], words, &["--watch"]].concat();
        let mut child = command(&cluster.members[0], &words).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answers: Vec<Value> =
            lines.take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answers.len(), 2, "{words:?}");
        for answer in answers {
            assert!(
                answer["schema_version"] == 1 && !answer[member_of_answer].is_null(),
                "{words:?}: {answer}"
            );
        }
    }

    // The maps go and come back, and the watch goes on.
    let words = ["-o", "json", "peers", "--watch=1"];
    let mut child = command(&cluster.members[0], &words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = |member: &str| {
        let line = lines
            .by_ref()
            .map(Result::unwrap)
            .take(30)
            .find(|line| !serde_json::from_str::<Value>(line).unwrap()[member].is_null());
        assert!(line.is_some(), "no answer has {member}");
        line.unwrap()
    };
    next("rates");
    cluster.members[0].daemon.terminate().unwrap();
    let (code, _, said) = ask(&cluster.members[0], &["down"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(next("error").contains(r#""code":"no_datapath""#));
    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    next("rates");
    child.kill().unwrap();
    child.wait().unwrap();
}
