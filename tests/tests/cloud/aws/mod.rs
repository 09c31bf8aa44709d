//! Amazon's cloud.

mod faults;
mod tables;

use flannel_tests::cloud::aws::{Aws, MAIN, Route, Target};
use flannel_tests::cluster::Turn;
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::{Etcd, PREFIX};
use flannel_tests::network::{Host, HostOptions, Network, Node, Place};
use ipnetwork::Ipv4Network;

use crate::wait_ready;

const BACKEND: &str = r#"{"Type":"aws-vpc"}"#;

/// A cloud with a registry. Fields are dropped in this order.
struct Lab {
    aws: Aws,
    etcd: Etcd,
    network: Network,
    _turn: Turn,
}

impl Lab {
    fn new() -> Self {
        Self::with(BACKEND)
    }

    fn with(backend: &str) -> Self {
        let turn = Turn::take();
        let network = Network::new().unwrap();
        let etcd = Etcd::on_network(&network).unwrap();
        let lab = Self { aws: Aws::start(&network).unwrap(), etcd, network, _turn: turn };
        lab.configure(PREFIX, "10.5.0.0/16", backend);
        lab
    }

    fn configure(&self, prefix: &str, network: &str, backend: &str) {
        let config = format!(r#"{{"Network":"{network}","Backend":{backend}}}"#);
        self.etcd.put(&format!("{prefix}/config"), &config).unwrap();
    }

    /// An instance whose daemon is started.
    fn begin(&self, number: u8, place: Place) -> (Daemon, Host) {
        self.begin_at(PREFIX, number, place)
    }

    fn begin_at(&self, prefix: &str, number: u8, place: Place) -> (Daemon, Host) {
        let host = Host::new(&self.network, place, number, HostOptions::default()).unwrap();
        self.aws.launch(&host).unwrap();
        let flags = vec!["--cloud-resync=1".to_owned()];
        let settings = Settings { endpoint: self.etcd.url(), prefix: prefix.to_owned(), flags };
        let daemon = Daemon::start_in(&host, "flanneld", settings, Aws::variables()).unwrap();
        (daemon, host)
    }

    /// An instance that is ready, and one pod.
    fn member(&self, number: u8, place: Place) -> (Daemon, Node) {
        let (mut daemon, host) = self.begin(number, place);
        let file = daemon.wait_ready().unwrap();
        wait_ready(&daemon);
        (daemon, Node::new(host, file, 1).unwrap())
    }

    fn route(&self, node: &Node) -> Option<Route> {
        self.aws.route(MAIN, node.file.subnet).unwrap()
    }

    /// Whether the main table leads to the node.
    fn leads_to(&self, node: &Node) -> bool {
        let interface = self.aws.state().instances[&node.host.address].interface.clone();
        self.route(node).is_some_and(|route| route.target == Target::Interface(interface))
    }

    /// Puts a route into the main table.
    fn put(&self, destination: Ipv4Network, target: Target) {
        let mut state = self.aws.state();
        let route = Route { target, since: std::time::Instant::now() };
        state.tables.get_mut(MAIN).unwrap().routes.insert(destination, route);
        state.apply().unwrap();
    }
}
