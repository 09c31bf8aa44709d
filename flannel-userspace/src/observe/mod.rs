//! What the daemon shows of itself: whether it runs, is ready and alive, and figures.
//!
//! [`Vitals`] go to everything that has something to tell. [`Server`] shows them over HTTP, on a thread of its
//! own: a daemon that is stuck can still say so, and whoever asks slowly keeps nobody waiting.

mod conditions;
mod datapath;
mod exposition;
mod liveness;
mod metrics;
mod process;
mod programs;
mod series;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use conditions::{Changes, Condition, Conditions, Failure, Limit};
pub use datapath::DatapathSource;
pub use exposition::{Exposition, Format};
pub use liveness::{Heart, Liveness};
pub use metrics::{
    EtcdMetrics, EtcdOperation, LeaseMetrics, Metrics, PeerState, ReconcileMetrics, ResyncCause,
};
pub use server::{Endpoints, ListenError, Listening, Server};
pub use state::Files;

/// The state of the daemon. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// What must be so for the host to forward.
    pub conditions: Conditions,
    /// What must not stand still.
    pub liveness: Liveness,
    /// What is counted and measured.
    pub metrics: Metrics,
}
