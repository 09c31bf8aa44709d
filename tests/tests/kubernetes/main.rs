//! Daemons whose registry is Kubernetes: a real API server, and hosts whose nodes the tests make.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod away;
mod container;
mod flannelctl;
mod node;
mod peers;

use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_tests::cluster::Turn;
use flannel_tests::daemon::Daemon;
use flannel_tests::kubernetes::ApiServer;
use flannel_tests::network::{Host, HostOptions, Network, Place};
use flannel_tests::wait;
use serde_json::{Value, json};

/// How long a change may take until it shows.
const SOON: Duration = Duration::from_secs(60);

/// A network with an API server.
struct Lab {
    // Dropped in this order.
    api: ApiServer,
    network: Network,
    _turn: Turn,
}

impl Lab {
    fn new() -> Self {
        let turn = Turn::take();
        let network = Network::new().unwrap();
        let api = ApiServer::start(&network).unwrap();
        Self { api, network, _turn: turn }
    }

    fn host(&self, number: u8) -> Host {
        Host::new(&self.network, Place::Near, number, HostOptions::default()).unwrap()
    }

    /// A host whose node has the subnet `10.244.<number>.0/24`, and a daemon that is ready.
    fn member(&self, number: u8) -> (Daemon, Host) {
        let host = self.host(number);
        self.api.add_node(&host.name, Some(&format!("10.244.{number}.0/24"))).unwrap();
        let mut daemon = self.api.start_daemon(&host, &net_conf("vxlan"), &[]).unwrap();
        daemon.wait_ready().unwrap();
        (daemon, host)
    }

    /// A node of which there is no host: `10.244.<number>.0/24` at 192.168.77.`number`.
    fn add_peer(&self, number: u8) {
        let name = format!("peer-{number}");
        self.api.add_node(&name, Some(&format!("10.244.{number}.0/24"))).unwrap();
        self.announce(&name, Ipv4Addr::new(192, 168, 77, number));
    }

    fn announce(&self, node: &str, public_ip: Ipv4Addr) {
        let mac = format!("02:00:00:00:77:{:02x}", public_ip.octets()[3]);
        let data = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
        let annotations = [
            ("backend-data", Some(&*data)),
            ("backend-type", Some("vxlan")),
            ("kube-subnet-manager", Some("true")),
            ("public-ip", Some(&*public_ip.to_string())),
        ];
        self.api.annotate(node, &annotations).unwrap();
    }
}

fn net_conf(backend: &str) -> Value {
    json!({ "Network": "10.244.0.0/16", "Backend": { "Type": backend } })
}

/// Waits until a host has a route to `subnet`, or none.
fn wait_route(host: &Host, subnet: &str, is_there: bool) {
    let what = format!("{} to have {} to {subnet}", host.name, if is_there { "a route" } else { "no route" });
    wait::until_true(&what, SOON, || host.namespace.ip("route").unwrap().contains(subnet) == is_there)
        .unwrap();
}

fn wait_log(daemon: &Daemon, text: &str) {
    let log = daemon.log();
    wait::until_true(&format!("the log to say {text:?}"), SOON, || {
        std::fs::read_to_string(&log).unwrap_or_default().contains(text)
    })
    .unwrap();
}
