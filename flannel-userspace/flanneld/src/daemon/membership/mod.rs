//! The kind of registry a network is kept in, as far as the start of a host depends on it.

mod etcd;
mod kubernetes;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use flannel_control::identity::Identity;
use flannel_control::lease::{AddressClaim, LeaseOwner, Own};
use flannel_kubernetes::{Hints, Nodes};
use flannel_model::config::NetworkConfig;
use flannel_registry::etcd::Etcd;
use flannel_registry::{ConfigSource, LeaseSource};

use super::DaemonError;
pub(super) use etcd::InEtcd;
pub(super) use kubernetes::InKubernetes;

/// A network's registry, and how this host takes part.
pub(super) trait Membership: Sized {
    /// Where the configuration stands.
    type Config: ConfigSource + Sync;
    /// Where the leases stand.
    type Leases: LeaseSource;
    /// How this host comes by its own.
    type Owner: LeaseOwner;

    /// Where the configuration stands.
    fn config(&self) -> &Self::Config;

    /// Where the leases stand.
    fn leases(&self) -> Self::Leases;

    /// The URLs at which the registry answers.
    fn endpoints(&self) -> Vec<String>;

    /// The nodes that are the leases, where the registry is Kubernetes.
    fn nodes(&self) -> Option<Nodes>;

    /// What the registry says of this host before it has a lease. With a `patience`, nothing after that.
    ///
    /// # Errors
    /// This host has no place in the registry.
    fn hints(&self, patience: Option<Duration>) -> impl Future<Output = Result<Hints, DaemonError>> + Send;

    /// A claim to the public address, not made yet, where claims are written.
    fn claim(&self, identity: &Identity, public_ip: IpAddr) -> Option<AddressClaim<Etcd>>;

    /// The etcd in which a claim would be ended when the host leaves.
    fn claims(&self) -> Option<Etcd>;

    /// How this host comes by its lease in a network of this configuration, having had `own` last.
    ///
    /// # Errors
    /// There can be none.
    fn owner(&self, config: &NetworkConfig, own: Option<&Own>) -> Result<Self::Owner, DaemonError>;
}
