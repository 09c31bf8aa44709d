//! What the daemon shows of itself: whether it runs, is ready and alive, and figures.
//!
//! [`Vitals`] go to everything that has something to tell. [`Server`] shows them over HTTP, on a thread of its
//! own: a daemon that is stuck can still say so, and whoever asks slowly keeps nobody waiting.

mod datapath;
mod exposition;
mod liveness;
mod metrics;
mod process;
mod programs;
mod readiness;
mod series;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use datapath::DatapathSource;
pub use exposition::{Exposition, Format};
pub use liveness::{Heart, Liveness};
pub use metrics::{
    EtcdMetrics, EtcdOperation, LeaseMetrics, Metrics, PeerState, ReconcileMetrics, ResyncCause,
};
pub use readiness::{Latch, Readiness};
pub use server::{Endpoints, ListenError, Listening, Server};
pub use state::Files;

/// The state of the daemon. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// What is still to be done before the host forwards.
    pub readiness: Readiness,
    /// What must not stand still.
    pub liveness: Liveness,
    /// What is counted and measured.
    pub metrics: Metrics,
}
