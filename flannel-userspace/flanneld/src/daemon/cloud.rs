//! The cloud whose route tables carry the packets, where the backend has one.

use std::time::Duration;

use flannel_cloud::{CloudError, Keeper, Memory, Reports, RouteTables, Seen};
use flannel_control::cloud_metrics::CloudMetrics;
use flannel_control::lease::LeaseState;
use flannel_model::condition::CLOUD_ROUTES;
use flannel_model::config::{BackendConfig, NetworkConfig};
use flannel_model::family::Subnets;
use flannel_model::underlay::Underlay;
use flannel_observe::Conditions;
use flannel_registry::LeaseSource;
use tokio::sync::watch;

/// A cloud that is not asked anything yet.
pub(super) struct Cloud {
    tables: Box<dyn RouteTables>,
    reports: Reports,
    seen: watch::Receiver<Option<Seen>>,
    period: Duration,
}

impl Cloud {
    /// The cloud of that backend, if it is one. From now on the host is not ready before the cloud leads to it.
    ///
    /// # Errors
    /// It could never be asked.
    pub(super) fn of(
        backend: &BackendConfig,
        period: Duration,
        conditions: &Conditions,
        metrics: &CloudMetrics,
    ) -> Result<Option<Self>, CloudError> {
        let BackendConfig::Cloud(config) = backend else { return Ok(None) };
        let tables = flannel_cloud::of(config, metrics)?;
        let (reports, seen) = Reports::new(conditions.add(CLOUD_ROUTES), conditions, metrics.clone());
        Ok(Some(Self { tables, reports, seen, period }))
    }

    /// What is seen of it.
    pub(super) fn seen(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.clone()
    }

    /// What keeps its tables for the host with this lease.
    pub(super) fn keeper<S: LeaseSource>(
        self,
        leases: S,
        networks: Subnets,
        cluster: String,
        lease: watch::Receiver<LeaseState>,
        underlay: watch::Receiver<Underlay>,
    ) -> Keeper<S> {
        let Self { tables, reports, period, .. } = self;
        Keeper {
            tables,
            leases,
            networks,
            cluster,
            lease,
            underlay,
            period,
            reports,
            memory: Memory::default(),
        }
    }
}

/// What tells the cluster of this configuration, with leases below `prefix`, from others that may share a cloud's network with
/// it, and with which it may even share `Network`. The same for all hosts.
pub(super) fn cluster(prefix: &str, config: &NetworkConfig) -> String {
    let families = config.families.values();
    let ranges =
        families.map(|family| format!("{} {}-{}", family.network, family.subnet_min, family.subnet_max));
    format!("{prefix} {}", ranges.collect::<Vec<_>>().join(" "))
}
