//! What is measured of the connection to Kubernetes' API server.

use std::time::Duration;

use flannel_observe::{Domain, Labels, ScrapeErrors};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What is asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesOperation {
    /// On which node this pod runs.
    GetPod,
    /// One node.
    GetNode,
    /// A page of nodes.
    List,
    /// A watch opened.
    Watch,
    /// Annotations of the own node.
    Annotate,
    /// The condition of the own node.
    SetCondition,
    /// An event of the own node.
    Tell,
}

impl KubernetesOperation {
    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::GetPod => "get_pod",
            Self::GetNode => "get_node",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Annotate => "annotate",
            Self::SetCondition => "set_condition",
            Self::Tell => "tell",
        }
    }

    /// What the API server did not do when it fails.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::GetPod => "say on which node this pod runs",
            Self::GetNode => "show a node",
            Self::List => "list the nodes",
            Self::Watch => "let this host watch the nodes",
            Self::Annotate => "annotate this host's node",
            Self::SetCondition => "take this host's network as available",
            Self::Tell => "take an event",
        }
    }
}

/// Metrics of the connection to the API server.
#[derive(Clone, Debug)]
pub struct KubernetesMetrics {
    requests: Family<[(&'static str, String); 2], Counter>,
    request_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

impl Default for KubernetesMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // From a millisecond to more than the half minute a request has.
            request_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 9))
            }),
        }
    }
}

impl KubernetesMetrics {
    /// A request took so long, and ended so: `OK`, the HTTP status, or why there was none.
    pub fn requested(&self, operation: KubernetesOperation, code: String, took: Duration) {
        self.requests.get_or_create(&[("op", operation.label().to_owned()), ("code", code)]).inc();
        self.request_duration.get_or_create(&[("op", operation.label())]).observe(took.as_secs_f64());
    }
}

impl Domain for KubernetesMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register(
            "kubernetes_requests",
            "Requests to the API server by operation and HTTP status, or Timeout, Transport, Answer or Client where \
             there was no proper answer",
            self.requests.clone(),
        );
        registry.register(
            "kubernetes_request_duration_seconds",
            "How long requests to the API server took, whatever the outcome",
            self.request_duration.clone(),
        );
    }
}
