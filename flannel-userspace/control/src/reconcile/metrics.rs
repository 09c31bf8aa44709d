//! What is done in the kernel.

use std::time::Duration;

use flannel_model::object::Object;
use flannel_observe::{Domain, Labels, ScrapeErrors};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The state of another host's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Everything by which the peer is reached is in the kernel.
    Programmed,
    /// The kernel refuses something of it, which is tried again.
    Failing,
    /// This backend has no path to it.
    Unreachable,
    /// It vanished, and is reached for a while still.
    Held,
    /// The lease is not acceptable.
    Refused,
}

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Programmed, Self::Failing, Self::Unreachable, Self::Held, Self::Refused];

    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Programmed => "programmed",
            Self::Failing => "failing",
            Self::Unreachable => "unreachable",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

/// Why the leases are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncCause {
    /// The daemon starts.
    Start,
    /// It is time to compare again.
    Periodic,
    /// Leases that were refused may be acceptable now that this host has changed.
    HostChanged,
    /// etcd has compacted history that was not received yet.
    Compacted,
    /// The watch ended otherwise, or could not be opened.
    WatchEnded,
}

impl ResyncCause {
    /// Every cause.
    pub const ALL: [Self; 5] =
        [Self::Start, Self::Periodic, Self::HostChanged, Self::Compacted, Self::WatchEnded];

    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Periodic => "periodic",
            Self::HostChanged => "host_changed",
            Self::Compacted => "compacted",
            Self::WatchEnded => "watch_ended",
        }
    }
}

/// Metrics of the loop that keeps the kernel equal to the leases.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    peers: Family<Labels<1>, Gauge>,
    /// Those of `peers`, in the order of [`PeerState::ALL`], so that setting them looks up no labels.
    by_state: [Gauge; PeerState::ALL.len()],
    resyncs: Family<Labels<1>, Counter>,
    duration: Histogram,
    repairs: Family<Labels<1>, Counter>,
    propagation: Histogram,
    mass_delete_holds: Counter,
}

impl Default for ReconcileMetrics {
    fn default() -> Self {
        let peers = Family::<Labels<1>, Gauge>::default();
        let metrics = Self {
            // An increase from nothing to one is not seen; one from zero is.
            by_state: PeerState::ALL.map(|state| peers.get_or_create_owned(&[("state", state.label())])),
            peers,
            resyncs: Family::default(),
            // From a millisecond to a quarter of a minute.
            duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            repairs: Family::default(),
            propagation: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
            mass_delete_holds: Counter::default(),
        };
        for cause in ResyncCause::ALL {
            metrics.resyncs.get_or_create(&[("cause", cause.label())]).inc_by(0);
        }
        metrics
    }
}

impl ReconcileMetrics {
    /// So many leases of other hosts are in this state.
    pub fn set_peers(&self, state: PeerState, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.by_state[state as usize].set(count);
    }

    /// The leases were listed and applied.
    pub fn resynced(&self, cause: ResyncCause) {
        self.resyncs.get_or_create(&[("cause", cause.label())]).inc();
    }

    /// The kernel was compared with what is wanted, and corrected.
    pub fn corrected(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Somebody else removed, replaced or added something in the kernel, and it was put right.
    pub fn repaired(&self, object: &Object) {
        self.repairs.get_or_create(&[("object", object.kind())]).inc();
    }

    /// Events of leases took so long from their arrival into the kernel.
    pub fn propagated(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }

    /// A large part of the peers vanished at once, and is held.
    pub fn mass_delete_held(&self) {
        self.mass_delete_holds.inc();
    }
}

impl Domain for ReconcileMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register(
            "peers",
            "Leases of other hosts by state: programmed in the kernel, failing to be programmed, unreachable \
             by the backend, held after they vanished, or refused",
            self.peers.clone(),
        );
        registry.register("resync", "Listings of all leases, by cause", self.resyncs.clone());
        registry.register(
            "reconcile_duration_seconds",
            "How long it took to compare the kernel with what is wanted and to correct it",
            self.duration.clone(),
        );
        registry.register(
            "reconcile_repairs",
            "Objects of flannel's in the kernel that somebody else changed, and that were restored",
            self.repairs.clone(),
        );
        registry.register(
            "propagation_seconds",
            "How long it took from the arrival of changed leases until the kernel forwarded by them",
            self.propagation.clone(),
        );
        registry.register(
            "mass_delete_holds",
            "Mass deletions: so many leases vanished at once that their peers were held",
            self.mass_delete_holds.clone(),
        );
    }
}
