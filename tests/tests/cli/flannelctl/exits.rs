//! Exit codes and the codes of errors: what is not as it should be is told apart from what cannot be told.

use std::fs;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::network::Place;
use rstest::rstest;
use serde_json::Value;

use super::{ask, ask_error, ask_json};
use crate::{run, text};

fn one_host() -> Cluster {
    Cluster::start(&Plan { places: vec![Place::Near], ..Plan::new(r#"{"Type":"vxlan"}"#) }).unwrap()
}

#[test]
fn errors_have_codes_and_answers_say_whether_all_is_well() {
    let mut cluster = one_host();
    let member = &cluster.members[0];
    for (code, words) in [
        (Some(0), &["status"][..]),
        (Some(0), &["peers"]),
        (Some(0), &["counters"]),
        (Some(0), &["drops"]),
        (Some(0), &["features"]),
        (Some(0), &["log-level"]),
        (Some(0), &["explain", "10.5.250.1", "10.5.251.1"]),
    ] {
        let (told, answer) = ask_json(member, words);
        assert_eq!(told, code, "{words:?}: {answer}");
    }
    let error = |code, name: &str| (Some(code), name.to_owned());
    assert_eq!(ask_error(member, &["peers", "10.5.250.1"]), error(3, "no_such_peer"));
    assert_eq!(ask_error(member, &["trace", "--peer=10.5.250.1", "--duration=1"]), error(3, "no_such_peer"));
    assert_eq!(ask_error(member, &["verify", "--state-file=/nowhere.json"]), error(1, "nothing_known"));
    assert_eq!(ask_error(member, &["leases", "--etcd-endpoints=http://127.0.0.1:1"]), error(1, "etcd"));
    assert_eq!(ask_error(member, &["maps", "dump", "NODE_INFO", "--sort=size"]), error(2, "no_such_column"));
    assert_eq!(ask_error(member, &["down"]), error(1, "in_use"), "the daemon runs");
    assert_eq!(ask_error(member, &["leave"]), error(2, "no_terminal"));

    cluster.members[0].daemon.terminate().unwrap();
    let member = &cluster.members[0];
    assert_eq!(ask_error(member, &["reload"]), error(1, "no_daemon"));
    let links = member.daemon.pin_dir().join("links");
    for link in fs::read_dir(&links).unwrap().flatten() {
        fs::remove_file(link.path()).unwrap();
    }
    let (code, status) = ask_json(member, &["status"]);
    assert_eq!((code, &status["attached"]), (Some(3), &false.into()), "{status}");

    let (code, _, said) = ask(member, &["down"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ask_error(member, &["peers"]), error(1, "no_datapath"));
    let (code, status) = ask_json(member, &["status"]);
    assert_eq!((code, &status["attached"], &status["daemon"]), (Some(3), &false.into(), &Value::Null));
    assert!(status["trouble"].as_str().unwrap().contains("no datapath at"), "{status}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("maps@0")).unwrap();
    for verb in ["peers", "status", "counters"] {
        let words = ["-o", "json", "--pin-dir", directory.path().to_str().unwrap(), verb];
        let output = run("flannelctl", &words);
        let error: Value = serde_json::from_str(&text(&output.stderr)).unwrap();
        assert_eq!(
            (output.status.code(), &error["error"]["code"]),
            (Some(1), &"other_layout".into()),
            "{verb}"
        );
    }
}

#[rstest]
#[case::vxlan(r#"{"Type":"vxlan"}"#, "device flannel.1")]
#[case::udp(r#"{"Type":"udp"}"#, "devices flannel0-in and flannel0-out")]
#[case::host_gw(r#"{"Type":"host-gw"}"#, "route to ")]
#[case::clsact(r#"{"Type":"vxlan"}"#, "clsact qdisc of interface ")]
fn what_would_be_removed_is_what_is_removed(#[case] backend: &str, #[case] among: &str) {
    let mut plan = Plan::new(backend).with_flag("--ip-masq").with_flag("--ip-blackhole-route");
    if among.starts_with("clsact") {
        plan = plan.with_flag("--datapath-hook=clsact");
    }
    let mut cluster = Cluster::start(&plan).unwrap();
    cluster.members[0].daemon.terminate().unwrap();
    let member = &cluster.members[0];
    let down = ["down", &format!("--subnet-file={}", member.daemon.subnet_file().display())];
    let rehearse = || ask_json(member, &[&down[..], &["--dry-run"]].concat());
    let (code, would) = rehearse();
    assert_eq!(code, Some(0), "{would}");
    assert_eq!(rehearse().1, would, "something was removed");
    let (_, status) = ask_json(member, &["status"]);
    assert_eq!(status["attached"], true, "{status}");
    let list = would["would_remove"].to_string();
    for thing in [among, "program ", "pins /", "rules: ", "blackhole route to ", "file "] {
        assert!(list.contains(thing), "{thing}: {list}");
    }
    let (code, removed) = ask_json(member, &down);
    assert_eq!((code, &removed["removed"]), (Some(0), &would["would_remove"]));
    let (code, would) = rehearse();
    assert_eq!((code, would["would_remove"].as_array().map(Vec::len)), (Some(0), Some(0)), "{would}");
}

#[test]
fn what_was_removed_is_told_although_the_rest_cannot_be() {
    let mut cluster = one_host();
    cluster.members[0].daemon.terminate().unwrap();
    let member = &cluster.members[0];
    // A directory is no file that can be removed.
    let state_file = member.daemon.state_file();
    let _ = fs::remove_file(&state_file);
    fs::create_dir_all(state_file.join("in the way")).unwrap();
    let words = ["-o", "json", "down", &format!("--state-file={}", state_file.display())];
    let (code, stdout, stderr) = ask(member, &words);
    fs::remove_dir_all(&state_file).unwrap();
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let removed: Value = serde_json::from_str(&stdout).unwrap();
    assert!(removed["removed"].to_string().contains("device flannel.1"), "{removed}");
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("cannot remove"), "{error}");
    let (code, rest) = ask_json(member, &["down"]);
    assert_eq!((code, &rest["removed"]), (Some(0), &serde_json::json!([])), "{rest}");
}
