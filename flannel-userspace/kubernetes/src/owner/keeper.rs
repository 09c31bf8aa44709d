//! Keeping the own node as it should be: its annotations, and the condition of its network.

use std::future::pending;
use std::time::Duration;

use backon::ExponentialBackoff;
use flannel_control::lease::{LeaseHolder, LeaseOrder, Lost, Withdrawn};
use flannel_control::pauses::growing;
use flannel_control::throttle::LogThrottle;
use flannel_control::{chance, until};
use flannel_model::family::Subnets;
use flannel_model::lease::{Attributes, Lease};
use flannel_registry::RegistryError;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{NodeOwner, Obstacle, RETRY};
use crate::annotations::Annotations;
use crate::error::ApiError;
use crate::nodes::OwnNode;

/// Least time between two writes, so that two daemons that take one node for theirs do it slowly.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// How often the node is looked at although nothing was heard of it, in seconds: the condition is not part of what is
/// followed.
const LOOK: std::ops::Range<f64> = 900.0..1800.0;

/// Holds the lease of this host's node.
pub(super) struct Keeper {
    owner: NodeOwner,
    /// What this host says of itself.
    attributes: Attributes,
    /// Of which node the subnets are; not known of a lease that is continued unseen.
    uid: Option<String>,
    holder: LeaseHolder,
    seen: watch::Receiver<OwnNode>,
    /// When to look at the node.
    due: Option<Instant>,
    last_write: Instant,
    pauses: ExponentialBackoff,
    told: LogThrottle,
}

impl Keeper {
    pub(super) fn new(
        owner: NodeOwner,
        attributes: Attributes,
        uid: Option<String>,
        holder: LeaseHolder,
    ) -> Self {
        let seen = owner.nodes.own();
        let now = Instant::now();
        Self {
            owner,
            attributes,
            uid,
            holder,
            seen,
            due: Some(now),
            last_write: now,
            pauses: growing(RETRY),
            told: LogThrottle::default(),
        }
    }

    /// Keeps the node as it should be. Returns when it has been assigned another subnet, and never once the lease is
    /// withdrawn.
    pub(super) async fn run(mut self) -> Lost {
        loop {
            tokio::select! {
                biased;
                Some(order) = self.holder.orders.recv() => match order {
                    LeaseOrder::Publish(attributes) => self.publish(attributes),
                    LeaseOrder::Withdraw(reply) => {
                        let outcome = self.withdraw().await;
                        let is_withdrawn = outcome.is_ok();
                        let outcome = outcome.map(|()| Withdrawn::Deleted);
                        let _ = reply.send(outcome.map_err(|error| RegistryError::from(error).into()));
                        // It is not written again, whatever is heard of it.
                        if is_withdrawn {
                            pending::<()>().await;
                        }
                    }
                    // The node itself is followed.
                    LeaseOrder::Seen { .. } | LeaseOrder::Listed { .. } => {}
                },
                Ok(()) = self.seen.changed() => self.see(),
                () = until(self.due) => match self.look().await {
                    Ok(None) => {
                        self.pauses = growing(RETRY);
                        self.due = Some(Instant::now() + Duration::from_secs_f64(chance::between(LOOK)));
                    }
                    Ok(Some(now)) => {
                        let subnets = self.lease().subnets;
                        return Lost::Reassigned { subnets, now };
                    }
                    Err(obstacle) => self.retry(&obstacle),
                },
            }
        }
    }

    fn lease(&self) -> Lease {
        self.holder.state.borrow().lease.clone()
    }

    fn publish(&mut self, attributes: Attributes) {
        if attributes != self.attributes {
            self.attributes = attributes;
            self.look_soon();
        }
    }

    /// Compares what was seen of the node with what it should say.
    fn see(&mut self) {
        let seen = self.seen.borrow_and_update().clone();
        match seen {
            OwnNode::Unseen => {}
            OwnNode::Absent => {
                warn!(
                    "this host's node is gone from Kubernetes: forwarding goes on, but other nodes forget this one; it is \
                     there again when kubelet registers it, which restarting kubelet does"
                );
            }
            OwnNode::Present { uid, annotations } => {
                if self.uid.as_ref() != Some(&uid) || !self.is_as_wanted(&annotations) {
                    self.look_soon();
                }
            }
        }
    }

    fn is_as_wanted(&self, annotations: &Annotations) -> bool {
        let wanted = self.owner.overwritten(&self.attributes, annotations);
        self.owner.nodes.prefix().changes(annotations, &wanted).is_empty()
    }

    fn look_soon(&mut self) {
        let soon = Instant::now().max(self.last_write + MIN_PAUSE);
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    fn retry(&mut self, obstacle: &Obstacle) {
        let text = obstacle.to_string();
        if self.told.should_log(&text) {
            warn!("this host's node cannot be kept as it should be: {text}; trying again");
        }
        self.due = Some(Instant::now() + self.pauses.next().unwrap_or(RETRY.1));
    }

    /// Makes the node what it should be. Returns what it has been assigned, if that is not what is served.
    async fn look(&mut self) -> Result<Option<Subnets>, Obstacle> {
        let node = self.owner.node().await?;
        let name = node.metadata.name.clone();
        let assigned = self.owner.assigned(&node)?.ok_or_else(|| Obstacle::Unassigned(name.clone()))?;
        let held = self.lease();
        if assigned != held.subnets {
            let text = format!(
                "the node {name} was assigned {assigned}, and this host served {}: flanneld ends, and serves the new \
                 subnet when it is started again; pods of the former one have to be made again",
                held.subnets
            );
            self.owner.nodes.api().tell(&name, &node.metadata.uid, "FlannelPodCIDRChanged", &text).await;
            return Ok(Some(assigned));
        }
        let former = self.uid.replace(node.metadata.uid.clone());
        if former.is_some_and(|former| former != node.metadata.uid) {
            info!(node = name, subnet = %assigned, "this host's node was made again, with the same subnet");
        }
        let attributes = self.owner.overwritten(&self.attributes, &node.metadata.annotations);
        self.last_write = Instant::now();
        self.owner.annotate(&node, &attributes).await?;
        if attributes != held.attributes {
            info!(public_ip = %attributes.public, "the node says what is new of this host");
            self.holder.state.send_modify(|state| state.lease.attributes = attributes);
        }
        if self.owner.sets_condition && !node.status.is_network_available() {
            self.owner.nodes.api().set_network_available(&name).await?;
            debug!(node = name, "the node's network is available");
        }
        Ok(None)
    }

    /// Has the node say nothing of this host any more.
    async fn withdraw(&self) -> Result<(), ApiError> {
        let name = match self.owner.nodes.name().await {
            Ok(name) => name,
            Err(error) => return Err(ApiError::Settings(error.to_string())),
        };
        let names = self.owner.nodes.prefix().written_names().map(|name| (name, Value::Null));
        self.owner.nodes.api().annotate(name, names).await.map(|_| ())
    }
}
