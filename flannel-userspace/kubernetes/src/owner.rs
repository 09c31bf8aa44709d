//! This host's lease: the subnet its node was assigned, and what the node's annotations are to say.

mod keeper;

use std::time::Duration;

use flannel_control::lease::{AcquireError, Keeping, Last, LeaseHandle, LeaseOwner, Own};
use flannel_control::patience::Patience;
use flannel_control::pauses::growing;
use flannel_control::throttle::LogThrottle;
use flannel_model::config::cidr::is_subnet_of;
use flannel_model::family::{Addresses, Subnets};
use flannel_model::lease::{Attributes, Lease, Revision};
use flannel_observe::Conditions;
use flannel_registry::RegistryError;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::annotations::Annotations;
use crate::error::ApiError;
use crate::node::{CidrError, Node};
use crate::nodes::Nodes;
use keeper::Keeper;

/// Pauses between attempts: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));
/// The first attempt has as long as that, however little patience there is.
const LEAST: Duration = Duration::from_secs(1);
/// Pauses while the node has no subnet, which is somebody else's work.
const UNASSIGNED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A host whose subnet Kubernetes assigns.
#[derive(Clone)]
pub struct NodeOwner {
    /// Where its node stands.
    pub nodes: Nodes,
    /// The whole network of each family that is served.
    pub networks: Subnets,
    /// Whether Kubernetes is told that the node's network is available: `--set-node-network-unavailable`.
    pub sets_condition: bool,
    /// Told what the lease is waited for.
    pub conditions: Conditions,
}

/// What the node was assigned cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unassignable {
    /// It is outside the network.
    #[error(
        "subnet \"{network}\" specified in the flannel net config doesn't contain \"{subnet}\" {}PodCIDR of the \
         \"{node}\" node: let Network be what kube-controller-manager has as --cluster-cidr",
        if subnet.is_ipv6() { "IPv6 " } else { "" }
    )]
    Outside {
        /// The network.
        network: ipnetwork::IpNetwork,
        /// What was assigned.
        subnet: ipnetwork::IpNetwork,
        /// The node.
        node: String,
    },
    /// It is not one network of each family at most.
    #[error("node \"{node}\" {reason}")]
    Cidrs {
        /// The node.
        node: String,
        /// What it is.
        reason: String,
    },
}

/// What stands between a host and its lease.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(
        "node \"{0}\" pod cidr not assigned: waiting until kube-controller-manager assigns one (--allocate-node-cidrs, \
         --cluster-cidr; kubeadm init --pod-network-cidr)"
    )]
    Unassigned(String),
    #[error(transparent)]
    Unassignable(#[from] Unassignable),
}

impl From<ApiError> for Obstacle {
    fn from(error: ApiError) -> Self {
        Self::Registry(error.into())
    }
}

impl LeaseOwner for NodeOwner {
    async fn acquire(
        self,
        attributes: Attributes,
        last: Option<Last<'_>>,
    ) -> Result<(LeaseHandle, Keeping), AcquireError> {
        self.nodes.serve(self.networks.iter().map(Into::into).collect());
        let (lease, uid) = match self.acquire_or_give_up(&attributes, last).await? {
            Ok((lease, uid)) => (lease, Some(uid)),
            Err(last) => {
                let lease = last.lease(attributes.clone());
                warn!(subnet = %lease.subnets, "the API server is away: continuing with the lease held last");
                (lease, None)
            }
        };
        let (handle, holder) = LeaseHandle::new(lease);
        Ok((handle, Box::pin(Keeper::new(self, attributes, uid, holder).run())))
    }
}

impl NodeOwner {
    /// A lease, and of which node; or the last one, when the patience with an API server that is away is over.
    async fn acquire_or_give_up<'a>(
        &self,
        attributes: &Attributes,
        last: Option<Last<'a>>,
    ) -> Result<Result<(Lease, String), &'a Own>, AcquireError> {
        let mut patience = Patience::new(last.map(|last| last.patience.max(LEAST)));
        let mut told = LogThrottle::default();
        let (mut pauses, mut unassigned) = (growing(RETRY), growing(UNASSIGNED));
        loop {
            // An API server behind a dead path does not even refuse.
            let outcome = match (patience.with(self.try_acquire(attributes)).await, last) {
                (Some(outcome), _) => outcome,
                (None, Some(last)) => return Ok(Err(last.own)),
                (None, None) => continue,
            };
            let obstacle = match outcome {
                Ok(found) => {
                    self.conditions.set_obstacle(None);
                    return Ok(Ok(found));
                }
                Err(obstacle) => obstacle,
            };
            self.conditions.set_obstacle(Some(obstacle.to_string()));
            let is_new = told.should_log(&obstacle.to_string());
            match &obstacle {
                Obstacle::Unassignable(error) => {
                    self.tell("FlannelPodCIDRUnusable", &obstacle.to_string()).await;
                    return Err(AcquireError::Unsuitable(Box::new(error.clone())));
                }
                Obstacle::Registry(error) => {
                    match last {
                        Some(last) if error.is_absence() && patience.is_over() => return Ok(Err(last.own)),
                        _ if error.is_absence() => {}
                        _ => patience.renew(),
                    }
                    if is_new {
                        warn!("cannot acquire a lease: {obstacle}; trying again");
                    }
                    let _ = patience.with(sleep(pauses.next().unwrap_or(RETRY.1))).await;
                }
                Obstacle::Unassigned(_) => {
                    if is_new {
                        warn!("cannot acquire a lease: {obstacle}");
                        self.tell("FlannelPodCIDRMissing", &obstacle.to_string()).await;
                    }
                    sleep(unassigned.next().unwrap_or(UNASSIGNED.1)).await;
                    patience.renew();
                }
            }
        }
    }

    async fn try_acquire(&self, attributes: &Attributes) -> Result<(Lease, String), Obstacle> {
        let node = self.node().await?;
        let subnets =
            self.assigned(&node)?.ok_or_else(|| Obstacle::Unassigned(node.metadata.name.clone()))?;
        let attributes = self.overwritten(attributes, &node.metadata.annotations);
        self.annotate(&node, &attributes).await?;
        info!(node = node.metadata.name, subnet = %subnets, public_ip = %attributes.public, "this node's lease");
        let lease =
            Lease { subnets, attributes, mod_revision: Revision::ZERO, created: Revision::ZERO, term: None };
        Ok((lease, node.metadata.uid))
    }

    /// This host's node as it is now.
    async fn node(&self) -> Result<Node, RegistryError> {
        let name = self.nodes.name().await?;
        Ok(self.nodes.api().node(name).await?)
    }

    /// What was assigned to the node of the families that are served; nothing if it lacks one yet.
    fn assigned(&self, node: &Node) -> Result<Option<Subnets>, Unassignable> {
        let name = &node.metadata.name;
        let cidrs = |error: CidrError| Unassignable::Cidrs { node: name.clone(), reason: error.to_string() };
        let all = node.spec.subnets().map_err(cidrs)?;
        let mut served = Subnets::NONE;
        for network in self.networks.iter() {
            let Some(subnet) = all.get(network.into()) else { return Ok(None) };
            if !is_subnet_of(subnet, network) {
                return Err(Unassignable::Outside { network, subnet, node: name.clone() });
            }
            served = served.with(subnet);
        }
        Ok(Some(served))
    }

    /// What the node is to say: with the addresses that the operator has it announce.
    fn overwritten(&self, attributes: &Attributes, annotations: &Annotations) -> Attributes {
        let Addresses { v4, v6 } = self.nodes.prefix().overwrites(annotations);
        let mut attributes = attributes.clone();
        attributes.public.v4 = attributes.public.v4.map(|own| v4.unwrap_or(own));
        attributes.public.v6 = attributes.public.v6.map(|own| v6.unwrap_or(own));
        attributes
    }

    /// Has the node say `attributes`, if it does not.
    async fn annotate(&self, node: &Node, attributes: &Attributes) -> Result<(), ApiError> {
        let changes = self.nodes.prefix().changes(&node.metadata.annotations, attributes);
        if !changes.is_empty() {
            let changes = changes.into_iter().map(|(name, value)| (name, value.into()));
            self.nodes.api().annotate(&node.metadata.name, changes).await?;
        }
        Ok(())
    }

    /// Tells whoever looks at the node.
    async fn tell(&self, reason: &str, message: &str) {
        if let Ok(node) = self.node().await {
            self.nodes.api().tell(&node.metadata.name, &node.metadata.uid, reason, message).await;
        }
    }
}

#[cfg(test)]
mod tests;
