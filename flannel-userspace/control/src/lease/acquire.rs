//! How a host acquires a lease.

use std::error::Error;
use std::time::Duration;

use flannel_model::family::{Family, PerFamily, Subnets};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Snapshot, SubnetKey};
use flannel_registry::{Expected, LeaseSource, LeaseStore, RegistryError, Written};
use rand::{Rng, RngExt};
use tokio::time::{Instant, sleep};

use super::{OutOfSubnets, Pool, allocate};

/// Among how many free subnets the first attempt chooses, as stock flannel; each further attempt among twice
/// as many, for then many hosts start together.
const WINDOW: usize = 100;
/// Attempts before giving up. A thousand hosts that start together need fewer than ten.
const MAX_ATTEMPTS: u32 = 64;
/// Longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What lease is wanted.
#[derive(Clone, Debug)]
pub struct AcquireConfig {
    /// The subnets to choose from, for each family that is served.
    pub pools: PerFamily<Pool>,
    /// What this host says of itself.
    pub attributes: Attributes,
    /// The subnets it had before, from the subnet file.
    pub previous: Subnets,
    /// The etcd lease with which this host last wrote its lease, if it remembers that.
    pub former_term: Option<EtcdLeaseId>,
    /// How long the lease lasts unless it is renewed.
    pub ttl: Duration,
}

/// A lease this host holds.
#[derive(Clone, Debug)]
pub struct OwnLease {
    /// The lease.
    pub lease: Lease,
    /// When it was asked for, at the latest: it lasts at least its time to live from here.
    pub since: Instant,
    /// Whether it stood in the registry already, as this host's.
    pub reused: bool,
}

/// No lease was acquired.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// The registry failed; another attempt may succeed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Every subnet is taken.
    #[error(transparent)]
    OutOfSubnets(#[from] OutOfSubnets),
    /// What is assigned to this host cannot be served.
    #[error("failed to acquire lease: {0}")]
    Unsuitable(Box<dyn Error + Send + Sync>),
    /// Somebody was faster every time.
    #[error("failed to acquire lease: {attempts} chosen subnets were taken by other hosts in the meantime")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
}

/// Acquires a lease: the one that is this host's already, else the previous subnet, else a free one.
///
/// A reservation (a lease that never expires) stays one. Leases of this host that do not fit the pool are
/// deleted. The attributes are written in any case.
///
/// # Errors
/// The registry fails, nothing is free, or other hosts are faster again and again.
pub async fn acquire<R: LeaseSource + LeaseStore>(
    registry: &R,
    config: &AcquireConfig,
    rng: &mut (impl Rng + Send),
) -> Result<OwnLease, AcquireError> {
    for attempt in 0..MAX_ATTEMPTS {
        let snapshot = discard_misfits(registry, config, registry.list().await?).await?;
        let own = own_lease(config, &snapshot);
        let (key, ttl, expected) = match own {
            Some(lease) => {
                (lease.key(), lease.term.map(|_| config.ttl), Expected::Revision(lease.mod_revision))
            }
            None => {
                let window = WINDOW << attempt.min(10);
                (free_subnets(config, &snapshot, window, rng)?, Some(config.ttl), Expected::Absent)
            }
        };
        let since = Instant::now();
        match registry.write(key, &config.attributes, ttl, expected).await? {
            Written::Done(lease) => return Ok(OwnLease { lease, since, reused: own.is_some() }),
            Written::Refused(_) => sleep(pause(attempt, rng)).await,
        }
    }
    Err(AcquireError::Contended { attempts: MAX_ATTEMPTS })
}

/// A free subnet of each family.
fn free_subnets(
    config: &AcquireConfig,
    snapshot: &Snapshot,
    window: usize,
    rng: &mut impl Rng,
) -> Result<SubnetKey, OutOfSubnets> {
    let taken = snapshot.subnets();
    let mut chosen = Subnets::NONE;
    for (family, pool) in config.pools.iter() {
        chosen = chosen.with(allocate(pool, &taken, config.previous.get(family), window, rng)?);
    }
    Ok(SubnetKey(chosen))
}

/// Deletes the leases of this host that the pool does not contain: the configuration changed.
async fn discard_misfits<R: LeaseSource + LeaseStore>(
    registry: &R,
    config: &AcquireConfig,
    mut snapshot: Snapshot,
) -> Result<Snapshot, RegistryError> {
    for lease in std::mem::take(&mut snapshot.leases) {
        let is_misfit = is_own(config, &lease) && !fits(config, &lease);
        if is_misfit && registry.delete(&lease).await? {
            tracing::info!(subnet = %lease.subnets, "deleted own lease, for which the configuration has no place");
        } else {
            snapshot.leases.push(lease);
        }
    }
    Ok(snapshot)
}

/// The lease to continue with: the previous one, else a reservation, else any.
fn own_lease<'a>(config: &AcquireConfig, snapshot: &'a Snapshot) -> Option<&'a Lease> {
    snapshot
        .leases
        .iter()
        .filter(|lease| is_own(config, lease) && fits(config, lease))
        .min_by_key(|lease| (!is_previous(config, lease), lease.term.is_some()))
}

/// Whether each of its subnets is one of the pool's of its family.
fn fits(config: &AcquireConfig, lease: &Lease) -> bool {
    let is_in_pool = |family| match (config.pools.get(family), lease.subnets.get(family)) {
        (Some(pool), Some(subnet)) => pool.contains(subnet),
        (pool, subnet) => pool.is_none() && subnet.is_none(),
    };
    Family::ALL.into_iter().all(is_in_pool)
}

/// Whether it is of the subnets this host had before, in the families that are served.
fn is_previous(config: &AcquireConfig, lease: &Lease) -> bool {
    config.pools.iter().all(|(family, _)| config.previous.get(family) == lease.subnets.get(family))
}

/// Whether the lease is this host's, by its address or by what did not change with the address. One with a subnet of a
/// family that is not served is not: its key names more than this host would write.
fn is_own(config: &AcquireConfig, lease: &Lease) -> bool {
    let own = &config.attributes;
    let has_own_address = own.public.first().is_some_and(|own| lease.attributes.public.first() == Some(own));
    let is_known = has_own_address || is_of_former_address(config, lease);
    let is_served = |family| config.pools.get(family).is_some() || lease.subnets.get(family).is_none();
    is_known && Family::ALL.into_iter().all(is_served)
}

/// Whether this host wrote the lease when it had another address: it was its previous subnet, and the VTEP or the etcd
/// lease are its own. With a second lease for the same VTEP the host would not be reached before this one has expired.
fn is_of_former_address(config: &AcquireConfig, lease: &Lease) -> bool {
    let own = &config.attributes;
    let has_own_vtep = !own.backend_data.is_empty() && lease.attributes.backend_data == own.backend_data;
    let has_own_term = lease.term.is_some() && lease.term == config.former_term;
    is_previous(config, lease) && (has_own_vtep || has_own_term)
}

/// A random pause, so that hosts that collided do not meet again.
fn pause(attempt: u32, rng: &mut impl Rng) -> Duration {
    let longest = MAX_PAUSE.min(Duration::from_millis(10 << attempt.min(8)));
    longest.mul_f64(rng.random_range(0.0..1.0))
}

#[cfg(test)]
mod tests;
