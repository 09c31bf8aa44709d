//! GC.

use serde_json::{Value, json};

use crate::rig::{Host, NETNS, run};

fn valid(host: &Host, attachments: &[(&str, &str)]) -> Value {
    let list: Vec<_> = attachments
        .iter()
        .map(|(container, interface)| json!({"containerID": container, "ifname": interface}))
        .collect();
    let mut conf = host.conf_of("net", "1.1.0");
    conf["cni.dev/valid-attachments"] = list.into();
    conf
}

/// Three pods, one of them with two interfaces, one of another network, and one that stock flannel has made.
fn host() -> Host {
    let host = Host::new();
    for (container, interface, network) in [
        ("alive", "eth0", "net"),
        ("alive", "net1", "net"),
        ("gone", "eth0", "net"),
        ("foreign", "eth0", "other"),
    ] {
        host.run("ADD", container, interface, &host.conf(network)).result();
    }
    for container in ["stock-alive", "stock-gone"] {
        host.keep(container, &json!({"name": "net", "type": "bridge"}).to_string());
    }
    host.keep("damaged", "{");
    host
}

#[test]
fn what_is_gone_is_removed_and_gc_is_handed_on() {
    let host = host();
    let conf = valid(&host, &[("alive", "eth0"), ("stock-alive", "eth0")]);
    let mut gc = host.command("GC", "", "");
    // Of no container, so it must not reach the delegate.
    gc.env("CNI_NETNS", NETNS).env("CNI_ARGS", "x=y");
    run(gc, &conf.to_string()).result();
    assert_eq!(host.kept(), ["alive:eth0", "damaged", "foreign:eth0", "stock-alive"]);
    let mut calls = host.calls().split_off(4);
    assert_eq!(calls.pop().as_deref(), Some("GC - - /run/netns/no-such-namespace"));
    calls.sort();
    assert_eq!(calls, ["DEL alive net1 unset", "DEL gone eth0 unset", "DEL stock-gone eth0 unset"]);
    let given = host.given("GC");
    assert_eq!(given["cni.dev/valid-attachments"], conf["cni.dev/valid-attachments"]);
    assert_eq!((&given["name"], &given["type"]), (&json!("net"), &json!("bridge")));
}

#[test]
fn either_key_keeps() {
    let host = host();
    let mut conf = valid(&host, &[("alive", "eth0"), ("alive", "net1"), ("stock-alive", "eth0")]);
    conf["cni.dev/attachments"] = json!([
        {"containerID": "gone", "ifname": "eth0"}, {"containerID": "stock-gone", "ifname": "eth0"},
    ]);
    let before = host.kept();
    host.run("GC", "", "", &conf).result();
    assert_eq!(host.kept(), before);
    assert_eq!(host.given("GC")["cni.dev/attachments"], conf["cni.dev/attachments"]);
}

#[test]
fn what_cannot_be_removed_stays_and_the_rest_goes() {
    let host = host();
    host.script("DEL", r#"[ $CNI_CONTAINERID = gone ] && { echo '{"code": 100, "msg": "busy"}'; exit 1; }"#);
    let said = host.run("GC", "", "", &valid(&host, &[]));
    assert_eq!(said.error(), (100, "busy"));
    assert_eq!(host.kept(), ["damaged", "foreign:eth0", "gone:eth0"]);
    assert!(host.calls().iter().any(|call| call.starts_with("GC ")), "{:?}", host.calls());
}

#[test]
fn the_delegates_error_passes() {
    let host = host();
    host.script("GC", r#"echo '{"code": 101, "msg": "no"}'; exit 1"#);
    assert_eq!(host.run("GC", "", "", &valid(&host, &[])).error(), (101, "no"));
}

#[test]
fn nothing_is_removed_unless_it_is_said_what_is_valid() {
    let host = host();
    let before = host.kept();
    let mut conf = host.conf_of("net", "1.1.0");
    assert_eq!(host.run("GC", "", "", &conf).error(), (7, "missing cni.dev/valid-attachments"));
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "alive"}]);
    let refusal = (7, "cni.dev/valid-attachments is no list of attachments");
    assert_eq!(host.run("GC", "", "", &conf).error(), refusal);
    assert_eq!(host.kept(), before);
}
