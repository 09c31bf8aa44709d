//! Leases: the own one, and those that are refused.

use std::time::SystemTime;

use flannel_observe::{Domain, Labels, Moment, ScrapeErrors};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lease::LeaseState;

/// Metrics of leases.
#[derive(Clone, Debug, Default)]
pub struct LeaseMetrics {
    expires: Moment,
    renewal: Moment,
    rejected: Family<Labels<1>, Counter>,
    conflicts: Counter,
}

impl LeaseMetrics {
    /// Shows until when the own lease lasts, and when it is renewed, from now on until its task ends.
    pub async fn follow(self, mut held: watch::Receiver<LeaseState>) {
        loop {
            let (expires, renewal) = {
                let held = held.borrow_and_update();
                (held.expires, held.renewal)
            };
            self.set_expires(expires);
            self.set_renewal(renewal);
            if held.changed().await.is_err() {
                return;
            }
        }
    }

    /// The own lease lasts until then; a reservation does not end.
    pub fn set_expires(&self, expires: Option<Instant>) {
        self.expires.set(expires.map(wall_clock));
    }

    /// The own lease is renewed then; a reservation is not.
    pub fn set_renewal(&self, renewal: Option<Instant>) {
        self.renewal.set(renewal.map(wall_clock));
    }

    /// A lease of another host was refused, for this reason.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&[("reason", reason)]).inc();
    }

    /// Somebody else wrote the own lease, or announced this host's address.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }
}

impl Domain for LeaseMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register(
            "lease_expires_timestamp_seconds",
            "When the own lease ends unless it is renewed, in seconds since 1970; absent for a reservation, which \
             does not end",
            self.expires.clone(),
        );
        registry.register(
            "lease_renewal_timestamp_seconds",
            "When the own lease is to be renewed, in seconds since 1970, long past if it was not; absent for a reservation",
            self.renewal.clone(),
        );
        registry.register(
            "lease_rejected",
            "Leases of other hosts that were refused, each counted once per write; see the log for which",
            self.rejected.clone(),
        );
        registry.register(
            "lease_conflicts",
            "How often somebody else wrote the own lease, or announced this host's address",
            self.conflicts.clone(),
        );
    }
}

/// The time of day of a point in monotonic time.
fn wall_clock(instant: Instant) -> SystemTime {
    SystemTime::now() + instant.saturating_duration_since(Instant::now())
}
