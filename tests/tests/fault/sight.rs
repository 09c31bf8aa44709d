//! What a scenario examines: peers, leases that no daemon wrote, the kernel's tables.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases::Lease;
use flannel_tests::namespace::Namespace;
use flannel_tests::network::Host;

use crate::scenario::time_until;

/// The backends' configurations.
pub const VXLAN: &str = r#"{"Type":"vxlan"}"#;
pub const UDP: &str = r#"{"Type":"udp"}"#;
pub const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// Where daemons with [`HEALTH_FLAG`] tell how they are.
pub const HEALTH: u16 = 9501;
/// See [`HEALTH`].
pub const HEALTH_FLAG: &str = "--metrics-listen=127.0.0.1:9501";

/// Two hosts. Their subnets are below 10.5.100.0: those above are free for leases written by hand.
pub fn plan(backend: &str) -> Plan {
    let config = format!(r#"{{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","Backend":{backend}}}"#);
    Plan { config, ..Plan::new(backend) }
}

/// A VXLAN host's lease of 10.5.`number`.0, written by hand; there is no such host.
pub fn paper_lease(number: u8) -> Lease {
    Lease {
        subnet: format!("10.5.{number}.0/24").parse().unwrap(),
        public_ip: [192, 168, 77, number].into(),
        vtep_mac: Some(format!("02:00:00:00:01:{number:02x}")),
    }
}

/// The peers in the maps of a daemon's programs: subnet and public address.
pub fn peers(daemon: &Daemon) -> BTreeMap<String, String> {
    let answer = daemon.ctl_json("peers").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let peers = answer["peers"].as_array().unwrap();
    peers.iter().map(|peer| (text(&peer["subnet"]), text(&peer["public_ip"]))).collect()
}

/// Whether every daemon has the peer of a lease.
pub fn all_know(cluster: &Cluster, lease: &Lease) -> bool {
    cluster.members.iter().all(|member| peers(&member.daemon).contains_key(&lease.subnet.to_string()))
}

/// Whether none has.
pub fn none_knows(cluster: &Cluster, lease: &Lease) -> bool {
    !cluster.members.iter().any(|member| peers(&member.daemon).contains_key(&lease.subnet.to_string()))
}

/// Writes a lease, and returns how long it takes until every daemon has its peer.
pub fn learn(cluster: &Cluster, lease: &Lease, limit: Duration) -> Duration {
    lease.write(&cluster.etcd, PREFIX).unwrap();
    time_until("a new lease to be known", Instant::now(), limit, || all_know(cluster, lease))
}

/// The key of a member's lease.
pub fn own_key(cluster: &Cluster, member: usize) -> String {
    let subnet = cluster.members[member].node.file.subnet;
    format!("{PREFIX}/subnets/{}-{}", subnet.network(), subnet.prefix())
}

/// The sum of a metric's series, from the daemon of a host on that port of its loopback interface.
pub fn metric(host: &Host, port: u16, name: &str) -> u64 {
    let answer = asked(host, port, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let series = answer.lines().filter(|line| line.starts_with(name));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// What `/readyz` of the daemon of a host answers on that port of its loopback interface.
pub fn readiness(host: &Host, port: u16) -> serde_json::Value {
    let answer = asked(host, port, "/readyz?format=json");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn asked(host: &Host, port: u16, path: &str) -> String {
    let mut stream = host.namespace.within(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What stands in a host's kernel: links, addresses, routes, neighbours, forwarding entries and programs, without the
/// numbers that the kernel gives them.
pub fn kernel_of(host: &Namespace) -> String {
    let shown = [
        host.ip("-brief address show").unwrap(),
        // The Ethernet address of the udp backend's device says nothing.
        host.ip("-brief link show type vxlan").unwrap(),
        host.ip("route show").unwrap(),
        host.ip("neigh show nud permanent").unwrap(),
        host.run("bridge", "fdb show dev flannel.1").unwrap_or_default(),
        without_digits(&host.run("bpftool", "net show").unwrap()),
    ];
    // Interfaces are listed in the order in which they were made.
    let mut lines: Vec<&str> = shown.iter().flat_map(|shown| shown.lines()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}
