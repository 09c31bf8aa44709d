//! This host's node: assigned late, made again, changed by others.

use flannel_tests::kubernetes::annotation;
use flannel_tests::wait;
use serde_json::Value;

use crate::{Lab, SOON, net_conf, wait_log, wait_route};

#[test]
fn a_subnet_that_is_not_assigned_yet_is_waited_for() {
    let lab = Lab::new();
    let host = lab.host(1);
    lab.api.add_node("h1", None).unwrap();
    let mut daemon = lab.api.start_daemon(&host, &net_conf("vxlan"), &[]).unwrap();
    wait_log(&daemon, r#"node "h1" pod cidr not assigned"#);
    daemon.check_running().unwrap();
    assert!(!daemon.subnet_file().exists());
    lab.api.assign("h1", "10.244.1.0/24").unwrap();
    daemon.wait_ready().unwrap();
}

#[test]
fn a_subnet_outside_the_network_ends_the_daemon() {
    let lab = Lab::new();
    let host = lab.host(1);
    lab.api.add_node("h1", Some("10.9.1.0/24")).unwrap();
    let mut daemon = lab.api.start_daemon(&host, &net_conf("vxlan"), &[]).unwrap();
    let status = daemon.wait_end(SOON).unwrap();
    assert_eq!(status.code(), Some(1));
    wait_log(
        &daemon,
        "Error registering network: failed to acquire lease: subnet \"10.244.0.0/16\" specified in the flannel net \
         config doesn't contain \"10.9.1.0/24\" PodCIDR of the \"h1\" node",
    );
    assert_eq!(annotation(&lab.api.node("h1").unwrap(), "kube-subnet-manager"), None, "nothing was said");
}

#[test]
fn the_own_node_is_kept_as_it_should_be() {
    let lab = Lab::new();
    let (mut daemon, _host) = lab.member(1);
    let public_ip = || annotation(&lab.api.node("h1").unwrap(), "public-ip").map(str::to_owned);
    let wait_public_ip = |address: &str| {
        wait::until_true(&format!("the node to announce {address}"), SOON, || {
            public_ip().as_deref() == Some(address)
        })
        .unwrap();
    };
    // Another address by the operator's will, and back.
    lab.api.annotate("h1", &[("public-ip-overwrite", Some("203.0.113.9"))]).unwrap();
    wait_public_ip("203.0.113.9");
    lab.api.annotate("h1", &[("public-ip-overwrite", None)]).unwrap();
    wait_public_ip("192.168.77.11");
    // What somebody takes away is written again.
    lab.api.annotate("h1", &[("public-ip", None), ("kube-subnet-manager", None)]).unwrap();
    wait_public_ip("192.168.77.11");
    // Made again with the same subnet: the new node is annotated like the former one.
    lab.api.delete_node("h1").unwrap();
    wait_log(&daemon, "this host's node is gone from Kubernetes");
    lab.api.add_node("h1", Some("10.244.1.0/24")).unwrap();
    wait_public_ip("192.168.77.11");
    daemon.check_running().unwrap();
    // And with another one: the daemon ends, and serves that when it is started again.
    lab.api.delete_node("h1").unwrap();
    lab.api.add_node("h1", Some("10.244.9.0/24")).unwrap();
    assert_eq!(daemon.wait_end(SOON).unwrap().code(), Some(1));
    wait_log(&daemon, "this host has been assigned 10.244.9.0/24 instead");
    daemon.restart().unwrap();
    assert_eq!(daemon.wait_ready().unwrap().subnet, "10.244.9.0/24".parse().unwrap());
}

/// As in etcd: what can take effect at once does, the rest is told, and the host is served as before.
#[test]
fn a_changed_configuration_takes_effect_or_is_told() {
    let lab = Lab::new();
    let (mut daemon, host) = lab.member(1);
    let file = lab.api.net_conf(&host);
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let outdated = || daemon.ctl_json("status").unwrap()["daemon"]["configuration"]["outdated"].to_string();
    let wait_outdated = |text: &str| {
        wait::until_true(&format!("the status to say {text:?}"), SOON, || outdated().contains(text)).unwrap();
    };
    write(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#);
    wait::until_true("the MTU to follow", SOON, || {
        std::fs::read_to_string(daemon.subnet_file()).unwrap_or_default().contains("FLANNEL_MTU=1350")
    })
    .unwrap();
    write(r#"{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#);
    wait_outdated("Network from 10.244.0.0/16 to 10.245.0.0/16");
    // Half written, then gone, then as it was.
    write(r#"{"Network":"10.2"#);
    wait_outdated("EOF");
    std::fs::remove_file(&file).unwrap();
    wait_outdated("net-conf.json");
    lab.add_peer(50);
    wait_route(&host, "10.244.50.0/24", true);
    write(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#);
    wait_outdated("null");
    daemon.check_running().unwrap();
}

#[test]
fn the_condition_is_left_alone_where_it_holds() {
    let lab = Lab::new();
    let host = lab.host(1);
    lab.api.add_node("h1", Some("10.244.1.0/24")).unwrap();
    lab.api.set_network_unavailable("h1", "False").unwrap();
    let mut daemon = lab.api.start_daemon(&host, &net_conf("vxlan"), &[]).unwrap();
    daemon.wait_ready().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let reason = |node: &Value| node["status"]["conditions"][0]["reason"].as_str().map(str::to_owned);
    assert_eq!(reason(&lab.api.node("h1").unwrap()).as_deref(), Some("Tests"));
}
