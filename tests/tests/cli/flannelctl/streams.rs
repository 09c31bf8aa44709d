//! Commands that keep running, and those that need no datapath.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;
use serde_json::Value;

use super::{ask, ask_json, command};
use crate::{run, text};

/// The first answer that `is_it`, of a command that keeps running, while `meanwhile` happens repeatedly. The command
/// ends by itself when nobody reads it any more.
fn first(member: &Member, words: &[&str], is_it: impl Fn(&Value) -> bool, meanwhile: impl Fn()) -> Value {
    let words = [&["-o", "json"], words].concat();
    let mut child = command(member, &words).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (answers, inbox) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if answers.send(serde_json::from_str::<Value>(&line).unwrap()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + wait::stretched(Duration::from_secs(15));
    let mut found = None;
    while found.is_none() && Instant::now() < deadline {
        meanwhile();
        found = inbox.recv_timeout(Duration::from_millis(300)).ok().filter(&is_it);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(inbox);
    reader.join().unwrap();
    assert!(found.is_some(), "no such answer of {words:?} came in time");
    found.unwrap()
}

#[test]
fn rates_and_drops_come_as_they_are() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"udp"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let member = &cluster.members[0];
    let rates = first(
        member,
        &["counters", "--watch"],
        |answer| {
            let rates = answer["rates"].as_array().unwrap();
            rates.iter().any(|rate| rate["hook"] == "encap" && rate["reason"] == "forwarded")
        },
        || drop(Ping::default().send(from, to)),
    );
    assert!(rates["seconds"].as_f64().unwrap() > 0.5, "{rates}");

    let (_, drops) = ask_json(member, &["drops"]);
    let reasons = |drops: &Value| -> Vec<String> {
        let drops = drops["drops"].as_array().unwrap();
        drops.iter().map(|drop| drop["reason"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!reasons(&drops).contains(&"no_peer".to_owned()), "{drops}");
    // Nobody leases this subnet, and the route of the whole network leads into the tunnel.
    let mut nobody = to.clone();
    nobody.address = [10, 5, 253, 9].into();
    let drop = first(
        member,
        &["drops", "--follow"],
        |drop| drop["reason"] == "no_peer",
        || drop(Ping::default().send(from, &nobody)),
    );
    assert!(drop["remedy"].as_str().unwrap().contains("flannelctl leases"), "{drop}");
    let (_, drops) = ask_json(member, &["drops"]);
    assert!(reasons(&drops).contains(&"no_peer".to_owned()), "{drops}");
    let (_, table, _) = ask(member, &["drops"]);
    assert!(table.contains("no_peer: The destination is in no subnet leased by a peer."), "{table}");
}

#[test]
fn the_daemon_is_told_ready_and_gone() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let pid = cluster.members[0].daemon.pid().unwrap();
    let member = &cluster.members[0];
    let (code, status) = ask_json(member, &["status", "--wait", "--timeout=10"]);
    assert_eq!((code, &status["daemon"]["pid"]), (Some(0), &pid.into()), "{status}");
    assert_eq!((&status["daemon"]["ready"], &status["daemon"]["told_by"]), (&true.into(), &"socket".into()));
    cluster.members[0].daemon.kill().unwrap();
    let (code, status) = ask_json(&cluster.members[0], &["status", "--wait", "--timeout=10"]);
    assert_eq!((code, &status["daemon"], &status["attached"]), (Some(0), &Value::Null, &true.into()));
}

#[test]
fn a_datapath_that_never_comes_is_waited_for_and_not_as_it_should_be() {
    let words = ["--pin-dir", "/sys/fs/bpf/nobody-is-here", "status", "--wait", "--timeout=1"];
    let since = Instant::now();
    let output = run("flannelctl", &words);
    assert_eq!(output.status.code(), Some(3));
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert!(text(&output.stdout).contains("is flanneld running?"), "{}", text(&output.stdout));
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let flag = format!("--completions={shell}");
        for (program, words) in [("flannelctl", &["completions", shell][..]), ("flanneld", &[&flag])] {
            let output = run(program, words);
            assert_eq!(output.status.code(), Some(0));
            assert!(text(&output.stdout).contains(program), "{shell} {program}");
        }
    }
    let output = run("flanneld", &["--man"]);
    assert!(text(&output.stdout).contains(".TH flanneld 1"), "{}", text(&output.stdout));
    let output = run("flannelctl", &["man", "flannelctl-verify"]);
    assert!(text(&output.stdout).contains(".TH flannelctl-verify 1"), "{}", text(&output.stdout));
}

#[test]
fn no_colours_where_nobody_sees_them() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let member = &cluster.members[0];
    for words in [&["status"][..], &["peers"], &["counters", "--all"], &["features"]] {
        let (code, table, said) = ask(member, words);
        assert!(code == Some(0) && !table.contains('\x1b'), "{words:?}: {said}{table:?}");
    }
}
