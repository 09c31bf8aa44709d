//! `flannelctl` shows what the datapath does, with or without the daemon.

mod damage;
mod exits;
mod explain;
mod lists;
mod orders;
mod socket;
mod streams;
mod tables;
mod terminal;
mod told;
mod top;
mod trace;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::{binaries, wait};
use rstest::rstest;
use serde_json::Value;

use crate::{run, text};

/// `flannelctl` on the member's host, for its network.
fn command(member: &Member, arguments: &[&str]) -> Command {
    let mut command = member.node.host.namespace.command(binaries::find("flannelctl").unwrap()).unwrap();
    command.arg("--pin-dir").arg(member.daemon.pin_dir()).args(arguments);
    command
}

/// What it answers, its exit code first.
fn ask(member: &Member, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(member, arguments).output().unwrap();
    (status.code(), text(&stdout), text(&stderr))
}

/// What it answers as JSON, its exit code first; without the version of the schema, which is always the same.
fn ask_json(member: &Member, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, stdout, stderr) = ask(member, &[&["-o", "json"], arguments].concat());
    let value = serde_json::from_str::<Value>(&stdout);
    assert!(value.is_ok(), "no JSON: {stdout:?} {stderr:?}");
    let mut value = value.unwrap();
    let version = value.as_object_mut().and_then(|members| members.remove("schema_version"));
    assert_eq!(version, Some(1.into()), "{stdout}");
    (code, value)
}

/// The code of the error that it reports as JSON, its exit code first.
fn ask_error(member: &Member, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, stdout, stderr) = ask(member, &[&["-o", "json"], arguments].concat());
    assert_eq!(stdout, "", "{stderr}");
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(error["schema_version"], 1, "{stderr}");
    assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{stderr}");
    (code, error["error"]["code"].as_str().unwrap().to_owned())
}

/// The flag that names the daemon's state file, once it has this number of peers.
fn state_file(member: &Member, peers: usize) -> String {
    let path = member.daemon.state_file();
    let knows = |path: &Path| {
        let state: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (state["peers"].as_array()?.len() == peers).then_some(())
    };
    wait::until_true("the state file", Duration::from_secs(40), || knows(&path).is_some()).unwrap();
    format!("--state-file={}", path.display())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn everything_is_shown_without_the_daemon() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for member in &mut cluster.members {
        member.daemon.terminate().unwrap();
    }
    let [first, second] = [0, 1].map(|member| &cluster.members[member]);

    let status = first.daemon.ctl_json("status").unwrap();
    assert_eq!(status["backend"], "vxlan");
    assert_eq!(status["subnet"], first.node.file.subnet.to_string());
    assert_eq!(status["address"], "192.168.77.11");
    assert_eq!(status["device"]["name"], "flannel.1");
    assert_eq!((&status["vni"], &status["port"], &status["peers"]), (&1.into(), &8472.into(), &1.into()));
    let table = first.daemon.ctl("status").unwrap();
    assert!(table.contains(&format!("subnet    {}", first.node.file.subnet)), "{table}");

    let peers = first.daemon.ctl_json("peers").unwrap();
    let peer = &peers["peers"][0];
    assert_eq!(peer["subnet"], second.node.file.subnet.to_string());
    assert_eq!((&peer["public_ip"], &peer["path"]), (&"192.168.77.12".into(), &"tunnel".into()));
    assert!(peer["sent_packets"].as_u64().unwrap() >= 2 && peer["received_bytes"].as_u64().unwrap() >= 196);
    assert_eq!(
        keys(peer),
        [
            "last_seen_seconds",
            "node",
            "path",
            "public_ip",
            "received_bytes",
            "received_packets",
            "sent_bytes",
            "sent_packets",
            "subnet",
            "vtep_mac",
            "whole"
        ]
    );

    let all = first.daemon.ctl_json("counters --all").unwrap();
    let moved = first.daemon.ctl_json("counters").unwrap();
    let count = |answer: &Value| answer["counters"].as_array().unwrap().len();
    assert!(count(&moved) >= 4 && count(&moved) < count(&all), "{moved}");
    assert_eq!(keys(&moved["counters"][0]), ["bytes", "help", "hook", "packets", "reason", "verdict"]);
    let table = first.daemon.ctl("counters").unwrap();
    assert!(table.split_whitespace().take(3).eq(["HOOK", "VERDICT", "REASON"]), "{table}");
}

#[rstest]
#[case::no_verb(&[])]
#[case::unknown_verb(&["frobnicate"])]
#[case::unknown_output(&["-o", "yaml", "status"])]
#[case::unknown_flag(&["status", "--frobnicate"])]
fn bad_usage_is_2(#[case] arguments: &[&str]) {
    let output = run("flannelctl", arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--help"), "{}", text(&output.stderr));
}

#[test]
fn place_without_a_datapath_is_1_and_named() {
    let output = run("flannelctl", &["--pin-dir", "/sys/fs/bpf/nobody-is-here", "peers"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    let said = text(&output.stderr);
    assert!(said.contains("/sys/fs/bpf/nobody-is-here") && said.contains("--pin-dir"), "{said}");
}

#[test]
fn maps_of_another_layout_are_told() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("maps@0")).unwrap();
    let output = run("flannelctl", &["--pin-dir", directory.path().to_str().unwrap(), "peers"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("in the layout of this version"), "{}", text(&output.stderr));
}
