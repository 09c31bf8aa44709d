//! How a host comes to hold a lease when it starts: a new one, or the one it held last while the registry is away.

use std::time::Duration;

use flannel_model::error::Chain;
use flannel_registry::{LeaseSource, LeaseStore};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::chance;
use crate::lease::{AcquireConfig, AcquireError, HoldConfig, LeaseHandle, LeaseTask, OwnLease, acquire};
use crate::pauses::growing;
use crate::remembered::Own;
use crate::throttle::LogThrottle;

/// Pauses between attempts to get a lease from a registry that fails: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The lease that was held last.
#[derive(Clone, Copy, Debug)]
pub struct Last<'a> {
    /// As it was.
    pub own: &'a Own,
    /// How long to wait for the registry before it is held again unseen.
    pub patience: Duration,
}

/// Acquires a lease, however long the registry takes to be there, or resumes the last one.
///
/// # Errors
/// Nothing is free, or other hosts are faster again and again.
pub async fn join<R: LeaseSource + LeaseStore>(
    registry: &R,
    config: HoldConfig,
    wanted: &AcquireConfig,
    last: Option<Last<'_>>,
) -> Result<(LeaseTask<R>, LeaseHandle), AcquireError> {
    Ok(match acquire_or_give_up(registry, wanted, last).await? {
        Ok(own) => LeaseTask::new(registry.clone(), config, own),
        Err(last) => {
            let lease = last.lease(wanted.attributes.clone());
            warn!(subnet = %lease.subnet, "etcd is away: continuing with the lease that was held last");
            LeaseTask::resume(registry.clone(), config, lease)
        }
    })
}

/// A lease; or the last one, when its patience is over.
async fn acquire_or_give_up<'a, R: LeaseSource + LeaseStore>(
    registry: &R,
    wanted: &AcquireConfig,
    last: Option<Last<'a>>,
) -> Result<Result<OwnLease, &'a Own>, AcquireError> {
    let start = Instant::now();
    let mut told = LogThrottle::default();
    let mut dice = chance::dice();
    let mut pauses = growing(RETRY);
    loop {
        match acquire(registry, wanted, &mut dice).await {
            Ok(own) => {
                let how = if own.reused { "reused" } else { "acquired" };
                let public_ip = wanted.attributes.public_ip;
                info!(subnet = %own.lease.subnet, %public_ip, "{how} the lease");
                return Ok(Ok(own));
            }
            Err(AcquireError::Registry(error)) => {
                if let Some(Last { own, patience }) = last
                    && start.elapsed() > patience
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
