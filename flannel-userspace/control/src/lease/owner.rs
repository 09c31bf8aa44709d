//! How a host comes by its lease and keeps it: by choosing subnets itself and writing what it leases, or by being told.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use flannel_model::lease::Attributes;

use super::{AcquireError, LeaseHandle, Lost, Own};

/// A way by which a host owns a lease.
pub trait LeaseOwner: Send {
    /// Comes by the lease of a host that says `attributes` of itself, however long the registry takes to be there; where
    /// that is longer than the patience with it, continues with the `last` one.
    ///
    /// # Errors
    /// There is none to be had.
    fn acquire(
        self,
        attributes: Attributes,
        last: Option<Last<'_>>,
    ) -> impl Future<Output = Result<(LeaseHandle, Keeping), AcquireError>> + Send;
}

/// Keeps a lease for as long as it is polled; ends when another host has it.
pub type Keeping = Pin<Box<dyn Future<Output = Lost> + Send>>;

/// The lease that was held last.
#[derive(Clone, Copy, Debug)]
pub struct Last<'a> {
    /// As it was.
    pub own: &'a Own,
    /// How long to wait for the registry, at most, before it is held again unseen.
    pub patience: Duration,
}
