//! What the daemon counts and measures of its own work. What the programs count is read when it is asked for.

mod etcd;
mod lease;
mod moment;
mod reconcile;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use etcd::{EtcdMetrics, EtcdOperation};
pub use lease::LeaseMetrics;
pub use reconcile::{PeerState, ReconcileMetrics, ResyncCause};

/// Names and values of a series' labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The metrics of the control plane. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The own lease, and those of others.
    pub leases: LeaseMetrics,
    /// The way to etcd.
    pub etcd: EtcdMetrics,
    /// What is done in the kernel.
    pub reconcile: ReconcileMetrics,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("abi_version", flannel_common::ABI_VERSION.to_string()),
        ]);
        registry.register("build", "Which flanneld runs, and the version of the maps' layout", build);
        self.leases.register(registry);
        self.etcd.register(registry);
        self.reconcile.register(registry);
    }
}
