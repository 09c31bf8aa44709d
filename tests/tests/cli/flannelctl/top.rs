//! `flannelctl top` on a terminal.

use std::process::Stdio;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::{Conversation, Ping};
use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::Value;

use super::terminal::Terminal;
use super::{ask, command};
use crate::text;

/// The first words of a line that begins with this one.
fn line<'a>(picture: &'a str, begin: &str) -> Option<Vec<&'a str>> {
    let line = picture.lines().find(|line| line.trim_start().starts_with(begin))?;
    Some(line.split_whitespace().collect())
}

#[test]
fn peers_drops_bypass_and_conditions_are_live() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"udp"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let member = &cluster.members[0];
    let subnet = cluster.members[1].node.file.subnet.to_string();
    let mut top = Terminal::run(command(member, &["top"]));
    top.wait_for("the daemon's state", |picture| picture.contains("flanneld ready (process "));
    assert!(top.picture().contains("192.168.77.11 on eth0"), "{}", top.picture());

    let conversation = Conversation::start(from, to).unwrap();
    top.wait_for("the peer's rate", |picture| {
        let words = line(picture, &subnet).unwrap_or_default();
        // SUBNET, PUBLIC IP, VTEP, PATH, SENT/S
        words.get(4).and_then(|sent| sent.parse().ok()).unwrap_or(0_u64) > 50
    });
    top.wait_for("the bypass", |picture| {
        let share = picture.split("bypass ").nth(1).and_then(|rest| rest.split(' ').next());
        share.and_then(|share| share.parse::<f64>().ok()).unwrap_or(0.0) > 50.0
    });
    top.wait_for("it to be seen", |picture| {
        line(picture, &subnet).is_some_and(|words| words.ends_with(&["0", "s", "ago"]))
    });
    conversation.stop().unwrap();

    let mut nobody = to.clone();
    nobody.address = [10, 5, 253, 9].into();
    let drop_one = || drop(Ping::default().send(from, &nobody));
    drop_one();
    top.wait_for("the drop", |picture| {
        drop_one();
        picture.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words[..], [rate, _, "encap", "no_peer", ..] if rate != "0")
        })
    });

    top.press("/nowhere\r");
    top.wait_for("no peer", |picture| {
        picture.contains("peers: 0 of 1") && picture.contains("filter: nowhere")
    });
    top.press("\x1b");
    top.wait_for("the peer again", |picture| picture.contains("peers: 1, by rate"));
    top.press("s");
    top.wait_for("another order", |picture| picture.contains("by subnet"));
    top.press("\r");
    top.wait_for("the peer's objects", |picture| {
        picture.contains(&format!("peer {subnet}")) && line(picture, "route").is_some()
    });
    assert!(top.picture().contains("192.168.77.12 dev eth0"), "{}", top.picture());
    top.press("?");
    top.wait_for("help", |picture| picture.contains("turn the order round"));
    top.press("q");
    let (status, _) = top.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_pins_are_shown_without_the_daemon_and_a_detached_program_is_told() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let member = &cluster.members[0];
    let mut top = Terminal::run(command(member, &["top", "--interval=1"]));
    let subnet = cluster.members[1].node.file.subnet.to_string();
    top.wait_for("what is pinned", |picture| {
        picture.contains("flanneld does not run")
            && picture.contains("pinned maps")
            && line(picture, &subnet).is_some()
    });
    let links = std::fs::read_dir(member.daemon.pin_dir().join("links")).unwrap().flatten();
    for link in links.filter(|link| link.file_name().to_string_lossy().starts_with("vxlan_decap-")) {
        std::fs::remove_file(link.path()).unwrap();
    }
    top.wait_for("the detached program", |picture| picture.contains("vxlan_decap is not attached to eth0"));
    cluster.members[0].daemon.restart().unwrap();
    top.wait_for("the daemon", |picture| {
        picture.contains("flanneld ready") && !picture.contains("is not attached")
    });
    // Ctrl-C
    top.press("\x03");
    assert_eq!(top.end().0.code(), Some(0));
}

#[rstest]
fn signals_give_the_terminal_back(
    #[values(Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT)] signal: Signal,
) {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"host-gw"}"#)).unwrap();
    let top = Terminal::run(command(&cluster.members[0], &["top"]));
    top.wait_for("the picture", |picture| picture.contains("peers: 1"));
    top.signal(signal);
    assert_eq!(top.end().0.code(), Some(0));
}

#[test]
fn without_terminal_or_datapath_it_says_so() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"host-gw"}"#)).unwrap();
    let member = &cluster.members[0];
    let output = command(member, &["top"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
    assert!(text(&output.stderr).contains("needs a terminal"), "{}", text(&output.stderr));
    let (code, _, said) = ask(member, &["-o", "json", "top"]);
    let error: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &error["error"]["code"]), (Some(2), &"no_terminal".into()), "{said}");

    cluster.members[0].daemon.terminate().unwrap();
    let (code, _, said) = ask(&cluster.members[0], &["down"]);
    assert_eq!(code, Some(0), "{said}");
    let top = Terminal::run(command(&cluster.members[0], &["top"]));
    let (status, seen) = top.end();
    assert!(status.code() == Some(1) && seen.contains("no datapath at"), "{seen}");
}

#[test]
fn what_is_watched_on_a_terminal_stays_in_its_place() {
    let cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let member = &cluster.members[0];
    let mut watched = Terminal::run(command(member, &["status", "--watch"]));
    watched.wait_for("the status", |picture| picture.contains("flanneld  ready"));
    // Two looks later there is one status.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let picture = watched.picture();
    assert_eq!(picture.matches("backend").count(), 1, "{picture}");
    member.daemon.suspend().unwrap();
    watched.wait_for("the daemon to be stuck", |picture| picture.contains("did not answer within"));
    member.daemon.signal(Signal::SIGCONT).unwrap();
    watched.wait_for("the daemon to be ready", |picture| {
        picture.contains("flanneld  ready") && !picture.contains("did not answer")
    });
    watched.press("x");
    watched.signal(Signal::SIGTERM);
    assert_eq!(watched.end().0.code(), None);
}
