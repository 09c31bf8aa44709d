//! Networks in etcd: hosts choose their subnets themselves.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use flannel_control::Metrics;
use flannel_control::identity::Identity;
use flannel_control::lease::{AddressClaim, Allocation, HoldConfig, LeaseMetrics, Own, Pool, PoolError};
use flannel_control::subnet_file::Previous;
use flannel_kubernetes::{Hints, Nodes};
use flannel_model::config::NetworkConfig;
use flannel_model::family::{PerFamily, Subnets};
use flannel_registry::etcd::Etcd;

use super::Membership;
use crate::cli::Options;
use crate::daemon::DaemonError;

/// A network in etcd.
pub(in crate::daemon) struct InEtcd {
    etcd: Etcd,
    endpoints: Vec<String>,
    subnet_file: PathBuf,
    hold: HoldConfig,
    metrics: LeaseMetrics,
}

impl InEtcd {
    /// # Errors
    /// The settings for etcd contradict each other.
    pub(in crate::daemon) fn new(options: &Options, metrics: &Metrics) -> Result<Self, DaemonError> {
        Ok(Self {
            etcd: Etcd::measured(options.etcd.clone(), metrics.etcd.clone())
                .map_err(DaemonError::Registry)?,
            endpoints: options.etcd.endpoints.clone(),
            subnet_file: options.subnet_file.clone(),
            hold: options.lease,
            metrics: metrics.leases.clone(),
        })
    }

    /// The subnets this host had before. The subnet file does not outlive a reboot where it stands in /run.
    fn previous_subnets(&self, own: Option<&Own>) -> Result<Subnets, DaemonError> {
        let file = Previous::read(&self.subnet_file)?.unwrap_or_default().previous_subnets();
        let remembered = own.map_or(Subnets::NONE, |own| own.subnets);
        Ok(file.or(remembered))
    }
}

impl Membership for InEtcd {
    type Config = Etcd;
    type Leases = Etcd;
    type Owner = Allocation<Etcd>;

    fn config(&self) -> &Etcd {
        &self.etcd
    }

    fn leases(&self) -> Etcd {
        self.etcd.clone()
    }

    fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }

    fn nodes(&self) -> Option<Nodes> {
        None
    }

    /// etcd knows a host by its lease alone.
    async fn hints(&self, _: Option<Duration>) -> Result<Hints, DaemonError> {
        Ok(Hints::default())
    }

    fn claim(&self, identity: &Identity, public_ip: IpAddr) -> Option<AddressClaim<Etcd>> {
        Some(AddressClaim::new(self.etcd.clone(), identity.clone(), public_ip))
    }

    fn claims(&self) -> Option<Etcd> {
        Some(self.etcd.clone())
    }

    fn owner(&self, config: &NetworkConfig, own: Option<&Own>) -> Result<Allocation<Etcd>, DaemonError> {
        Ok(Allocation {
            registry: self.etcd.clone(),
            pools: pools(config)?,
            previous: self.previous_subnets(own)?,
            former_term: own.and_then(|own| own.term),
            hold: self.hold,
            metrics: self.metrics.clone(),
        })
    }
}

/// The subnets to choose from.
fn pools(config: &NetworkConfig) -> Result<PerFamily<Pool>, PoolError> {
    let mut pools = PerFamily::NONE;
    for (family, config) in config.families.iter() {
        pools.set(family, Some(Pool::new(config.subnet_min, config.subnet_max, config.subnet_len)?));
    }
    Ok(pools)
}
