//! What is counted of a cloud.

use std::time::SystemTime;

use flannel_observe::{Domain, Labels, Moment, ScrapeErrors};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of a cloud's route tables. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct CloudMetrics {
    calls: Family<Labels<1>, Counter>,
    failures: Family<Labels<2>, Counter>,
    repairs: Family<Labels<1>, Counter>,
    used: Family<[(&'static str, String); 1], Gauge>,
    limit: Family<[(&'static str, String); 1], Gauge>,
    looked: Moment,
}

/// What was put right in a route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The own route was missing.
    Put,
    /// It led elsewhere.
    Replaced,
    /// The route of a host that is gone was in the way.
    Removed,
    /// The cloud did not let this host forward.
    Forwarding,
}

impl Repair {
    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Forwarding => "forwarding",
        }
    }
}

impl CloudMetrics {
    /// `action` was asked for.
    pub fn called(&self, action: &'static str) {
        self.calls.get_or_create(&[("action", action)]).inc();
    }

    /// It was not done, for this kind of reason.
    pub fn failed(&self, action: &'static str, reason: &'static str) {
        self.failures.get_or_create(&[("action", action), ("reason", reason)]).inc();
    }

    /// Something was put right.
    pub fn repaired(&self, repair: Repair) {
        self.repairs.get_or_create(&[("change", repair.label())]).inc();
    }

    /// No table is known, until [`CloudMetrics::table`] tells of it.
    pub fn forget_tables(&self) {
        self.used.clear();
        self.limit.clear();
    }

    /// A table has so many routes that count against its quota, if that is known.
    pub fn table(&self, id: &str, used: usize, limit: Option<usize>) {
        let labels = [("table", id.to_owned())];
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.used.get_or_create(&labels).set(number(used));
        if let Some(limit) = limit {
            self.limit.get_or_create(&labels).set(number(limit));
        }
    }

    /// Everything was compared at that time, and is as it should be.
    pub fn settled(&self, time: SystemTime) {
        self.looked.set(Some(time));
    }
}

impl Domain for CloudMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register("cloud_api_calls", "Calls of the cloud's API, by action", self.calls.clone());
        registry.register(
            "cloud_api_failures",
            "Those that were not done, by action and reason; throttled ones were too many for the cloud",
            self.failures.clone(),
        );
        registry.register(
            "cloud_repairs",
            "What was put right in the cloud: own routes put or replaced, routes of dead hosts removed, forwarding allowed",
            self.repairs.clone(),
        );
        registry.register(
            "cloud_routes",
            "Routes in a route table of the cloud that count against its quota, whoever made them",
            self.used.clone(),
        );
        registry.register(
            "cloud_routes_limit",
            "The quota of routes in a route table of the cloud",
            self.limit.clone(),
        );
        registry.register(
            "cloud_in_step_timestamp_seconds",
            "When the cloud's route tables were last seen to be as they should; absent before the first time",
            self.looked.clone(),
        );
    }
}
