//! `flannelctl explain` says what then happens.

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use rstest::rstest;
use serde_json::{Value, json};

use super::{ask, ask_json};

#[rstest]
#[case::vxlan("vxlan", 134, "vxlan")]
#[case::udp("udp", 112, "udp")]
#[case::host_gw("host-gw", 0, "none")]
fn both_ways(#[case] backend: &str, #[case] bytes: u64, #[case] encapsulation: &str) {
    let cluster = Cluster::start(&Plan::new(&format!(r#"{{"Type":"{backend}"}}"#))).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let [here, there] = [0, 1].map(|member| cluster.pod(member).unwrap().address.to_string());
    let member = &cluster.members[0];
    let explain = |words: &[&str]| {
        let (code, answer) = ask_json(member, &[&["explain"], words].concat());
        assert_eq!(code, Some(0));
        answer
    };
    let out = explain(&[&here, &there]);
    assert_eq!((&out["direction"], &out["encapsulation"]), (&json!("out"), &json!(encapsulation)), "{out}");
    assert_eq!(out["entry"]["public_ip"], "192.168.77.12", "{out}");
    assert_eq!(out["mtu"]["fits"], true, "{out}");
    let back = explain(&[&there, &here]);
    assert_eq!(back["direction"], "in");
    if bytes == 0 {
        assert_eq!((&out["verdict"], &back["verdict"]), (&Value::Null, &Value::Null));
        assert_eq!(out["route"], json!(format!("{there} via 192.168.77.12 dev eth0")));
        return;
    }
    assert_eq!((&out["reason"], &out["outer"]["bytes"]), (&json!("forwarded"), &json!(bytes)), "{out}");
    assert_eq!(
        (&out["outer"]["source"], &out["outer"]["destination"]),
        (&json!("192.168.77.11"), &json!("192.168.77.12"))
    );
    assert_eq!(out["outer_route"], "192.168.77.12 dev eth0");
    assert_eq!((&back["reason"], &back["program_attached"]), (&json!("forwarded"), &json!(true)), "{back}");
    let long = explain(&["--size=9000", &here, &there]);
    assert_eq!(long["mtu"]["fits"], false, "{long}");
    // As the fault suite sees it: a host without a lease, and one that sends what is not its own.
    let foreign = explain(&["--outer-source=192.168.77.99", &there, &here]);
    assert_eq!((&foreign["verdict"], &foreign["reason"]), (&json!("drop"), &json!("unknown_outer_source")));
    let mismatch = explain(&["--outer-source=192.168.77.12", "10.5.254.9", &here]);
    assert_eq!(mismatch["reason"], "inner_source_mismatch");
    let (_, table, _) = ask(member, &["explain", "--outer-source=192.168.77.12", "10.5.254.9", &here]);
    assert!(table.contains("--guard=peer"), "{table}");
    let local = explain(&[&here, &here]);
    assert_eq!(local["direction"], "local");
}
