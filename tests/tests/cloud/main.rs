//! Hosts in clouds whose route tables carry the packets: real daemons, played clouds.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod ali;
mod aws;
mod gce;
mod tencent;
mod weather;

use std::time::Duration;

use flannel_tests::daemon::Daemon;
use flannel_tests::network::Node;
use flannel_tests::wait;
use ipnetwork::Ipv4Network;

/// How long a change may take until it shows.
const SOON: Duration = Duration::from_secs(30);

/// The places of daemons.
fn places(nodes: &[(Daemon, Node)]) -> Vec<&Node> {
    nodes.iter().map(|(_, node)| node).collect()
}

/// The subnet that a host leases.
fn subnet(node: &Node) -> Ipv4Network {
    Ipv4Network::new(node.file.subnet.network(), node.file.subnet.prefix()).unwrap()
}

fn wait_log(daemon: &Daemon, text: &str) {
    daemon.wait_log(text, SOON).unwrap();
}

/// Waits until the daemon says that it is ready in every respect.
fn wait_ready(daemon: &Daemon) -> serde_json::Value {
    wait::until("every condition to be met", SOON, || daemon.ctl_json("status")).unwrap()
}

/// Waits until `flannelctl status` says all of that: the cloud is looked at again and again.
fn wait_shown(daemon: &Daemon, words: &[&str]) {
    let shown = || {
        let status = daemon.ctl("status")?;
        anyhow::ensure!(words.iter().all(|word| status.contains(word)), "{status}");
        Ok(())
    };
    wait::until(&format!("flannelctl to show {words:?}"), SOON, shown).unwrap();
}
