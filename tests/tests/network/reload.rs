//! When programs cannot be loaded again, those of before forward on, and the daemon says that something is not as it
//! should be until it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::ledger;
use flannel_tests::wait::until;
use rstest::rstest;
use serde_json::Value;

use crate::{UDP, VXLAN, plan};

/// How long the daemon may take to notice.
const NOTICE: Duration = Duration::from_secs(5);
/// How long until it tries again.
const RETRY: Duration = Duration::from_secs(15);

/// What `/readyz` answers.
fn readiness(cluster: &Cluster) -> Result<String> {
    cluster.members[0].node.host.namespace.within(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9501")?;
        stream.write_all(b"GET /readyz?format=json HTTP/1.1\r\nHost: flanneld\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(body.to_owned())
    })
}

fn is_ready(cluster: &Cluster, wanted: bool) -> Result<Value> {
    let text = readiness(cluster)?;
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(answer["ready"] == wanted, "{text}");
    Ok(answer)
}

/// The programs that are in their places, by their ids.
fn programs(cluster: &Cluster) -> BTreeSet<u32> {
    ledger::pinned(cluster.members[0].daemon.pin_dir()).unwrap().into_keys().collect()
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
fn a_refused_reload_leaves_the_former_programs(#[case] backend: &str) {
    let cluster = Cluster::start(&plan(backend).with_flag("--metrics-listen=127.0.0.1:9501")).unwrap();
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    is_ready(&cluster, true).unwrap();
    let before = programs(&cluster);

    let member = &cluster.members[0];
    let pins = member.daemon.pin_dir();
    let maps = fs::read_dir(pins).unwrap().flatten().map(|entry| entry.path());
    let maps = maps.into_iter().find(|path| path.to_string_lossy().contains("maps@")).unwrap();
    // A map where a program must be: nothing is loaded over pins that are not ours.
    let foreign = pins.join("qdiscs/77777");
    fs::hard_link(maps.join("NODE_INFO"), &foreign).unwrap();
    member.node.host.namespace.ip("link set eth0 mtu 1400").unwrap();

    let answer = until("the daemon to be not ready", NOTICE, || is_ready(&cluster, false)).unwrap();
    assert_eq!(answer["pending"], serde_json::json!(["datapath in place"]));
    let failing = answer["failing"][0].to_string();
    assert!(failing.contains("qdiscs/77777 is not ours"), "{answer}");
    assert!(member.daemon.ctl("status").is_err(), "its exit code tells");
    assert_eq!(programs(&cluster), before, "the former programs are in their places");
    check_reached(&pairs).unwrap();

    fs::remove_file(&foreign).unwrap();
    until("the daemon to be ready again", RETRY, || is_ready(&cluster, true)).unwrap();
    member.daemon.ctl("status").unwrap();
    assert_ne!(programs(&cluster), before, "programs know the underlay as it is now");
    check_reached(&pairs).unwrap();
}
