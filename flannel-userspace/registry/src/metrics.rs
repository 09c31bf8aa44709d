//! The connection to etcd.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use flannel_model::lease::Revision;
use flannel_observe::{Domain, Labels, Moment, ScrapeErrors};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::{RegistryError, WatchError};

/// What is asked of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdOperation {
    /// To let the user in.
    Authenticate,
    /// The network configuration.
    Config,
    /// A page of leases.
    List,
    /// A new etcd lease.
    Grant,
    /// The end of an etcd lease.
    Revoke,
    /// A lease written.
    Write,
    /// A lease deleted.
    Delete,
    /// The remaining time of an etcd lease.
    TimeToLive,
    /// A watch opened on the leases.
    Watch,
    /// A watch opened on the network configuration.
    WatchConfig,
    /// This host's address claimed.
    Claim,
    /// A sign of life.
    Keep,
}

impl EtcdOperation {
    /// Every operation.
    pub const ALL: [Self; 12] = [
        Self::Authenticate,
        Self::Config,
        Self::List,
        Self::Grant,
        Self::Revoke,
        Self::Write,
        Self::Delete,
        Self::TimeToLive,
        Self::Watch,
        Self::WatchConfig,
        Self::Claim,
        Self::Keep,
    ];

    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Config => "config",
            Self::List => "list",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::TimeToLive => "time_to_live",
            Self::Watch => "watch",
            Self::WatchConfig => "watch_config",
            Self::Claim => "claim",
            Self::Keep => "keep",
        }
    }

    /// What etcd did not do when it fails.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Authenticate => "let the user in",
            Self::Config => "read the network configuration",
            Self::List => "list the leases",
            Self::Grant => "grant a lease",
            Self::Revoke => "revoke a lease",
            Self::Write => "write the lease",
            Self::Delete => "delete the lease",
            Self::TimeToLive => "read the remaining time of a lease",
            Self::Watch => "watch the leases",
            Self::WatchConfig => "watch the network configuration",
            Self::Claim => "write this host's address",
            Self::Keep => "keep this host's address",
        }
    }
}

/// Metrics of the connection to etcd.
#[derive(Clone, Debug)]
pub struct EtcdMetrics {
    connected: Gauge,
    last_event: Moment,
    applied_revision: Gauge,
    requests: Family<[(&'static str, Cow<'static, str>); 2], Counter>,
    request_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    watch_restarts: Family<Labels<1>, Counter>,
}

impl Default for EtcdMetrics {
    fn default() -> Self {
        Self {
            connected: Gauge::default(),
            last_event: Moment::default(),
            applied_revision: Gauge::default(),
            requests: Family::default(),
            // From a millisecond to more than the ten seconds a request has.
            request_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 8))
            }),
            watch_restarts: Family::default(),
        }
    }
}

impl EtcdMetrics {
    /// Whether the leases are followed at present.
    pub fn set_connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// Events arrived just now.
    pub fn events_arrived(&self) {
        self.last_event.set(Some(SystemTime::now()));
    }

    /// Everything up to `revision` is taken in.
    pub fn applied(&self, revision: Revision) {
        self.applied_revision.set(revision.number());
    }

    /// A request took so long, and ended so.
    pub fn requested<T>(&self, operation: EtcdOperation, outcome: &Result<T, RegistryError>, took: Duration) {
        let code = outcome.as_ref().map_or_else(code, |_| Cow::Borrowed("OK"));
        self.requests.get_or_create(&[("op", operation.label().into()), ("code", code)]).inc();
        self.request_duration.get_or_create(&[("op", operation.label())]).observe(took.as_secs_f64());
    }

    /// A watch has ended, and another one must follow.
    pub fn watch_ended(&self, error: &WatchError) {
        let cause = match error {
            WatchError::Compacted { .. } | WatchError::Expired(_) => "compacted",
            WatchError::Reset { .. } => "reset",
            WatchError::Cancelled { .. } => "cancelled",
            WatchError::Broken { .. } | WatchError::Ended(_) => "broken",
        };
        self.watch_restarts.get_or_create(&[("cause", cause)]).inc();
    }
}

impl Domain for EtcdMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register(
            "etcd_connected",
            "1 while the leases in etcd, or in Kubernetes, can be listed and followed, 0 while that is away and \
             forwarding continues with the known peers",
            self.connected.clone(),
        );
        registry.register(
            "etcd_last_event_timestamp_seconds",
            "When etcd, or Kubernetes, last reported a change of a lease, in seconds since 1970; absent before the first one",
            self.last_event.clone(),
        );
        registry.register(
            "etcd_applied_revision",
            "Revision of etcd, or resource version in Kubernetes, up to which every change of a lease is applied; 0 before the first listing",
            self.applied_revision.clone(),
        );
        registry.register(
            "etcd_requests",
            "Requests to etcd by operation and gRPC status, or Timeout, Transport, NotV3 or Client where there was \
             no answer",
            self.requests.clone(),
        );
        registry.register(
            "etcd_request_duration_seconds",
            "How long requests to etcd took, whatever the outcome",
            self.request_duration.clone(),
        );
        registry.register(
            "etcd_watch_restarts",
            "Watches on the leases that ended and were replaced, by cause",
            self.watch_restarts.clone(),
        );
    }
}

/// What stands for an error as the status of a request.
fn code(error: &RegistryError) -> Cow<'static, str> {
    match error {
        RegistryError::Timeout { .. } => "Timeout".into(),
        RegistryError::NotV3 { .. } => "NotV3".into(),
        RegistryError::Other { .. } => "Other".into(),
        RegistryError::Denied { .. } => "PermissionDenied".into(),
        RegistryError::Connect { error, .. }
        | RegistryError::Login { error, .. }
        | RegistryError::Request { error, .. } => status(error),
        RegistryError::NoEndpoint
        | RegistryError::Plaintext { .. }
        | RegistryError::MixedSchemes { .. }
        | RegistryError::UserInEndpoint { .. }
        | RegistryError::HalfIdentity
        | RegistryError::ReadFile { .. }
        | RegistryError::NotPem { .. }
        | RegistryError::EncryptedKey { .. }
        | RegistryError::ConfigMissing { .. }
        | RegistryError::ConfigNotText { .. }
        | RegistryError::Encode(_) => "Client".into(),
    }
}

fn status(error: &etcd_client::Error) -> Cow<'static, str> {
    match error {
        // The names of gRPC's codes; there are 17.
        etcd_client::Error::GRpcStatus(status) => format!("{:?}", status.code()).into(),
        etcd_client::Error::TransportError(_) => "Transport".into(),
        _ => "Client".into(),
    }
}
