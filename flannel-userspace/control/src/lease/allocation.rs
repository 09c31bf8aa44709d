//! Leases that hosts allocate themselves, as in etcd: each chooses free subnets, writes its lease and renews it.

use std::time::Duration;

use flannel_model::error::Chain;
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::lease::{Attributes, EtcdLeaseId};
use flannel_registry::{LeaseSource, LeaseStore};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    AcquireConfig, AcquireError, HoldConfig, Keeping, Last, LeaseHandle, LeaseMetrics, LeaseOwner, LeaseTask,
    Own, OwnLease, Pool, acquire,
};
use crate::chance;
use crate::patience::Patience;
use crate::pauses::growing;
use crate::throttle::LogThrottle;

/// Pauses between attempts to get a lease from a registry that fails: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A host that allocates its lease.
#[derive(Clone, Debug)]
pub struct Allocation<R> {
    /// Where leases stand.
    pub registry: R,
    /// The subnets to choose from, for each family that is served.
    pub pools: PerFamily<Pool>,
    /// The subnets it had before, from the subnet file.
    pub previous: Subnets,
    /// The etcd lease with which this host last wrote its lease, if it remembers that.
    pub former_term: Option<EtcdLeaseId>,
    /// For how long leases are held at a time.
    pub hold: HoldConfig,
    /// Counts what others do to the lease.
    pub metrics: LeaseMetrics,
}

impl<R: LeaseSource + LeaseStore> LeaseOwner for Allocation<R> {
    async fn acquire(
        self,
        attributes: Attributes,
        last: Option<Last<'_>>,
    ) -> Result<(LeaseHandle, Keeping), AcquireError> {
        let Self { registry, pools, previous, former_term, hold, metrics } = self;
        let wanted = AcquireConfig { pools, attributes, previous, former_term, ttl: hold.ttl };
        let (task, handle) = match acquire_or_give_up(&registry, &wanted, last).await? {
            Ok(own) => LeaseTask::new(registry, hold, own),
            Err(last) => {
                let lease = last.lease(wanted.attributes);
                warn!(subnet = %lease.subnets, "etcd is away: continuing with the lease held last");
                LeaseTask::resume(registry, hold, lease, last.expires(hold.ttl))
            }
        };
        Ok((handle, Box::pin(task.counting(metrics).run())))
    }
}

/// A lease; or the last one, when its patience is over, also with an attempt that takes long: each asks every member of
/// the registry, one after the other.
async fn acquire_or_give_up<'a, R: LeaseSource + LeaseStore>(
    registry: &R,
    wanted: &AcquireConfig,
    last: Option<Last<'a>>,
) -> Result<Result<OwnLease, &'a Own>, AcquireError> {
    let patience = Patience::new(last.map(|last| last.patience));
    let mut told = LogThrottle::default();
    let mut dice = chance::dice();
    let mut pauses = growing(RETRY);
    loop {
        let attempt = match (patience.with(acquire(registry, wanted, &mut dice)).await, last) {
            (Some(attempt), _) => attempt,
            (None, Some(last)) => return Ok(Err(last.own)),
            (None, None) => continue,
        };
        match attempt {
            Ok(own) => {
                let how = if own.reused { "reused" } else { "acquired" };
                let public_ip = wanted.attributes.public;
                info!(subnet = %own.lease.subnets, %public_ip, "{how} the lease");
                return Ok(Ok(own));
            }
            Err(AcquireError::Registry(error)) => {
                if let Some(Last { own, .. }) = last
                    && patience.is_over()
                    && error.is_absence()
                {
                    return Ok(Err(own));
                }
                let text = Chain(&error).to_string();
                if told.should_log(&text) {
                    warn!("cannot acquire a lease: {text}; trying again");
                }
                sleep(pauses.next().unwrap_or(RETRY.1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
