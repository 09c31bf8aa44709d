//! What stands between the hosts and etcd.

use std::fs;
use std::time::Duration;

use flannel_tests::cluster::Cluster;
use flannel_tests::network::ETCD_ADDRESS;
use flannel_tests::wait;

/// Has the hosts without etcd until [`let_through`]; returns when every daemon has noticed.
pub fn turn_away(cluster: &Cluster) {
    let reset = "iifname != lo tcp dport 2379 reject with tcp reset";
    install(cluster, reset, "oifname != lo tcp sport 2379 tcp flags & rst != rst drop");
    for member in &cluster.members {
        let noticed = || fs::read_to_string(member.daemon.log()).unwrap().contains("the registry is away");
        wait::until_true("the daemon to miss etcd", Duration::from_secs(15), noticed).unwrap();
    }
}

/// Drops what goes through the connections that stand now, without a word; new ones are free.
pub fn silence_connections(cluster: &Cluster) {
    let table = cluster.network.lan().run("ss", "-Htn state established sport = :2379").unwrap();
    let clients = table.lines().filter_map(|line| line.split_whitespace().nth(3)?.rsplit_once(':'));
    let is_host = |address: &str| address != ETCD_ADDRESS.to_string();
    let ports: Vec<&str> = clients.filter(|(address, _)| is_host(address)).map(|(_, port)| port).collect();
    assert!(!ports.is_empty(), "no host is connected to etcd: {table}");
    let ports = ports.join(",");
    install(
        cluster,
        &format!("tcp dport 2379 tcp sport {{ {ports} }} drop"),
        &format!("tcp sport 2379 tcp dport {{ {ports} }} drop"),
    );
}

/// Ends what [`turn_away`] or [`silence_connections`] began.
pub fn let_through(cluster: &Cluster) {
    cluster.network.lan().run("nft", "delete table ip fault").unwrap();
}

fn install(cluster: &Cluster, input: &str, output: &str) {
    let nft = |command: &str| cluster.network.lan().run("nft", command).unwrap();
    nft("add table ip fault");
    for (hook, rule) in [("input", input), ("output", output)] {
        nft(&format!("add chain ip fault {hook} {{ type filter hook {hook} priority 0 ; }}"));
        nft(&format!("add rule ip fault {hook} {rule}"));
    }
}
