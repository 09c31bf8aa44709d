//! How nodes are called: the running flanneld knows it where Kubernetes is the registry.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use flannel_control::socket::{NodeNames, RegistryKind, Request};
use flannel_model::family::Subnets;
use ipnetwork::{IpNetwork, Ipv4Network};

use super::daemon::Daemon;
use super::place::Context;

/// The names, by the addresses of the subnets.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Ipv4Addr, String>);

impl Names {
    /// Asks the daemon; none where it runs not, or its registry is etcd.
    pub(super) async fn ask(context: &Context<'_>) -> Self {
        let daemon = Daemon::find(context.place).await.unwrap_or_default();
        let Some(daemon) = daemon.filter(knows_nodes) else { return Self::default() };
        daemon.tell::<NodeNames>(Request::Nodes).await.map(Self::from).unwrap_or_default()
    }

    /// The node that leases `subnet`.
    pub(super) fn of(&self, subnet: Option<Ipv4Network>) -> Option<&str> {
        self.0.get(&subnet?.network()).map(String::as_str)
    }
}

impl From<NodeNames> for Names {
    fn from(told: NodeNames) -> Self {
        let of_node = |node: flannel_control::socket::NamedNode| {
            let first = node.subnets.iter().find_map(|subnet| match subnet {
                IpNetwork::V4(subnet) => Some(subnet.network()),
                IpNetwork::V6(_) => None,
            });
            first.map(|address| (address, node.name))
        };
        Self(told.nodes.into_iter().filter_map(of_node).collect())
    }
}

impl From<Vec<(String, Subnets)>> for Names {
    fn from(nodes: Vec<(String, Subnets)>) -> Self {
        let of_node = |(name, subnets): (String, Subnets)| Some((subnets.v4?.network(), name));
        Self(nodes.into_iter().filter_map(of_node).collect())
    }
}

fn knows_nodes(daemon: &Daemon) -> bool {
    daemon.told.as_ref().is_ok_and(|status| status.registry.kind == RegistryKind::Kubernetes)
}
