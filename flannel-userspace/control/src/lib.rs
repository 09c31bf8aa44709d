//! The control plane: how a host comes by its lease and keeps it, who its peers are, and what is in the kernel for each.
//!
//! [`configuration`] follows that of the network, [`lease`] holds the own lease, [`peers`] makes a table of the others' and says what changed, a [`backend`] turns each
//! peer into objects of the kernel, and [`reconcile`] keeps the kernel equal to that. Command lines, logging and the
//! order in which things start do not live here.

pub mod backend;
pub mod chance;
pub mod cloud_metrics;
mod compact;
pub mod configuration;
pub mod exclusive;
pub mod file;
pub mod identity;
pub mod kernel;
pub mod lease;
mod metrics;
pub mod patience;
pub mod pauses;
pub mod peers;
pub mod reconcile;
pub mod remembered;
pub mod service;
pub mod socket;
pub mod subnet_file;
pub mod throttle;

use tokio::time::{Instant, sleep_until, timeout_at};

pub use metrics::Metrics;

/// What comes of `work` until then; nothing where it takes longer. Without such a time it may take for ever.
pub async fn within<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => timeout_at(end, work).await.ok(),
        None => Some(work.await),
    }
}

/// Waits until then; without end if there is no such time.
pub async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
