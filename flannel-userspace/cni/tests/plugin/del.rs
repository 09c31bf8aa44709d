//! DEL.

use std::fs;

use serde_json::json;

use crate::rig::{Host, V4};

#[test]
fn what_was_made_is_removed_though_the_subnet_is_another() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    host.write_subnet_file(&V4.replace("10.1.17", "10.1.18"));
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!(host.given("DEL"), host.given("ADD"));
    assert!(host.kept().is_empty());
}

#[test]
fn the_file_stays_until_the_delegate_has_succeeded() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    host.script("DEL", r#"echo '{"code": 11, "msg": "busy"}'; exit 1"#);
    for _ in 0..2 {
        assert_eq!(host.run("DEL", "pod", "eth0", &host.conf("net")).error(), (11, "busy"));
        assert_eq!(host.kept(), ["pod:eth0"]);
    }
    host.unscript("DEL");
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert!(host.kept().is_empty());
    assert_eq!(host.calls().iter().filter(|call| call.starts_with("DEL pod eth0")).count(), 3);
}

#[test]
fn without_a_file_the_delegate_is_told_what_it_would_be_told_now() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    fs::remove_file(host.path("data/pod:eth0")).unwrap();
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!(host.given("DEL"), host.given("ADD"));
}

#[test]
fn without_a_subnet_file_the_result_tells_the_subnet() {
    for junk in [None, Some("FLANNEL_MTU\n")] {
        let host = Host::new();
        fs::remove_file(host.path("subnet.env")).unwrap();
        junk.inspect(|junk| host.write_subnet_file(junk));
        let mut conf = host.conf_of("net", "0.4.0");
        conf["prevResult"] = json!({"ips": [{"address": "10.1.17.9/24", "version": "4"}]});
        host.run("DEL", "pod", "eth0", &conf).result();
        assert_eq!(host.given("DEL")["ipam"]["ranges"], json!([[{"subnet": "10.1.17.0/24"}]]));
    }
}

#[test]
fn of_what_nobody_knows_nothing_is_left() {
    let host = Host::new();
    fs::remove_file(host.path("subnet.env")).unwrap();
    let said = host.run("DEL", "pod", "eth0", &host.conf("net"));
    said.result();
    assert!(said.stderr.contains("there is nothing to remove"), "{said:?}");
    assert!(host.calls().is_empty());
}

#[test]
fn a_damaged_file_is_as_none() {
    let host = Host::new();
    host.keep("pod:eth0", "{\"type\":");
    host.keep(".pod:eth0", "{");
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!(host.given("DEL")["name"], "net");
    assert!(host.kept().is_empty());
}

#[test]
fn files_of_stock_flannel_are_read() {
    let host = Host::new();
    let stock = json!({"name": "net", "type": "bridge", "mtu": 1450, "ipam": {"type": "host-local"}});
    host.keep("pod", &stock.to_string());
    host.script("DEL", "exit 1");
    host.run("DEL", "pod", "eth0", &host.conf("net")).error();
    assert_eq!(host.kept(), ["pod"]);
    host.unscript("DEL");
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!(host.given("DEL"), stock);
    assert!(host.kept().is_empty());
}

#[test]
fn a_file_of_stock_flannel_for_another_network_stays() {
    let host = Host::new();
    host.keep("pod", &json!({"name": "other", "type": "bridge", "mtu": 1450}).to_string());
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!((host.given("DEL")["name"].clone(), host.kept()), (json!("net"), vec!["pod".to_owned()]));
}

#[test]
fn no_delegate_is_no_success() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    fs::remove_file(host.path("bin/bridge")).unwrap();
    let said = host.run("DEL", "pod", "eth0", &host.conf("net"));
    assert!(said.error().1.starts_with("failed to find plugin \"bridge\""), "{said:?}");
    assert_eq!(host.kept(), ["pod:eth0"]);
}
