//! Networks in Kubernetes, which assigns subnets to its nodes.

use std::net::IpAddr;
use std::time::Duration;

use flannel_control::identity::Identity;
use flannel_control::lease::{AddressClaim, Own};
use flannel_control::patience::Patience;
use flannel_control::throttle::LogThrottle;
use flannel_kubernetes::{Hints, HintsError, NetConf, NodeOwner, Nodes};
use flannel_model::config::NetworkConfig;
use flannel_observe::Conditions;
use flannel_registry::KubernetesMetrics;
use flannel_registry::etcd::Etcd;
use tokio::time::sleep;
use tracing::warn;

use super::Membership;
use crate::cli::KubernetesOptions;
use crate::daemon::DaemonError;

/// Pause between two attempts to ask for this host's node.
const PAUSE: Duration = Duration::from_secs(2);

/// A network in Kubernetes.
pub(in crate::daemon) struct InKubernetes {
    nodes: Nodes,
    net_conf: NetConf,
    sets_condition: bool,
    conditions: Conditions,
}

impl InKubernetes {
    /// # Errors
    /// The settings do not say where the API server is, or the file has no configuration.
    pub(in crate::daemon) async fn new(
        options: &KubernetesOptions,
        metrics: KubernetesMetrics,
        conditions: Conditions,
    ) -> Result<Self, DaemonError> {
        let KubernetesOptions { access, prefix, node, net_conf, sets_condition } = options;
        let nodes = Nodes::open(access.clone(), prefix.clone(), node.clone(), metrics);
        Ok(Self {
            nodes: nodes.await.map_err(|error| DaemonError::SubnetManager(Box::new(error)))?,
            net_conf: NetConf::open(net_conf).map_err(|error| DaemonError::SubnetManager(Box::new(error)))?,
            sets_condition: *sets_condition,
            conditions,
        })
    }
}

impl Membership for InKubernetes {
    type Config = NetConf;
    type Leases = Nodes;
    type Owner = NodeOwner;

    fn config(&self) -> &NetConf {
        &self.net_conf
    }

    fn leases(&self) -> Nodes {
        self.nodes.clone()
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.nodes.server()]
    }

    fn nodes(&self) -> Option<Nodes> {
        Some(self.nodes.clone())
    }

    async fn hints(&self, patience: Option<Duration>) -> Result<Hints, DaemonError> {
        let remembers_nothing = patience.is_none();
        let patience = Patience::new(patience);
        let mut told = LogThrottle::default();
        loop {
            // An API server behind a dead path does not even refuse.
            let Some(hints) = patience.with(self.nodes.hints()).await else {
                warn!("the API server does not show this host's node: continuing with what is remembered");
                return Ok(Hints::default());
            };
            let error = match hints {
                Ok(hints) => return Ok(hints),
                Err(error) => error,
            };
            match &error {
                HintsError::Name(name) if remembers_nothing && name.is_final() => {
                    return Err(DaemonError::SubnetManager(Box::new(error)));
                }
                // Whoever waits for its lease waits for the node as well.
                HintsError::Node(error) if !error.is_absence() => return Ok(Hints::default()),
                _ if patience.is_over() => {
                    warn!("this host's node is not known: {error}; continuing with what is remembered");
                    return Ok(Hints::default());
                }
                _ => {}
            }
            if told.should_log(&error.to_string()) {
                warn!("this host's node is not known: {error}; trying again");
            }
            let _ = patience.with(sleep(PAUSE)).await;
        }
    }

    /// Which nodes announce one address shows in the nodes themselves.
    fn claim(&self, _: &Identity, _: IpAddr) -> Option<AddressClaim<Etcd>> {
        None
    }

    fn claims(&self) -> Option<Etcd> {
        None
    }

    fn owner(&self, config: &NetworkConfig, _: Option<&Own>) -> Result<NodeOwner, DaemonError> {
        Ok(NodeOwner {
            nodes: self.nodes.clone(),
            networks: config.networks(),
            sets_condition: self.sets_condition,
            conditions: self.conditions.clone(),
        })
    }
}
