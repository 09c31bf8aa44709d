//! What the control plane counts and measures of its own work.

use flannel_observe::{Domain, ScrapeErrors};
use flannel_registry::{EtcdMetrics, KubernetesMetrics};
use prometheus_client::registry::Registry;

use crate::cloud_metrics::CloudMetrics;
use crate::configuration::ConfigMetrics;
use crate::lease::LeaseMetrics;
use crate::reconcile::ReconcileMetrics;

/// The metrics of the control plane. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The own lease, and those of others.
    pub leases: LeaseMetrics,
    /// The connection to etcd.
    pub etcd: EtcdMetrics,
    /// The connection to Kubernetes' API server.
    pub kubernetes: KubernetesMetrics,
    /// What is done in the kernel.
    pub reconcile: ReconcileMetrics,
    /// The cloud whose route tables carry the packets.
    pub cloud: CloudMetrics,
    /// Which configuration is served.
    pub configuration: ConfigMetrics,
}

impl Domain for Metrics {
    fn register(&self, registry: &mut Registry, errors: &ScrapeErrors) {
        self.leases.register(registry, errors);
        self.etcd.register(registry, errors);
        self.kubernetes.register(registry, errors);
        self.reconcile.register(registry, errors);
        self.cloud.register(registry, errors);
        self.configuration.register(registry, errors);
    }
}
