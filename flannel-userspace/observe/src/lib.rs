//! What the daemon reports about itself: readiness, liveness and metrics.
//!
//! [`Vitals`] go to every part that has something to report. [`Server`] shows them over HTTP, on a thread of its own: a
//! daemon that is stuck can still report it, and a slow client delays nobody. Each domain registers its own metrics
//! ([`Domain`]); this crate knows none.

mod conditions;
mod exposition;
mod liveness;
mod moment;
mod process;
mod scrape;
mod series;
mod server;
mod state;

pub use conditions::{Changes, Condition, Conditions, Failure, Limit, Limitation, Status};
pub use exposition::{Domain, Exposition, Format};
pub use liveness::{Heart, Liveness};
pub use moment::Moment;
pub use scrape::{ScrapeErrors, Source};
pub use series::{Labels, Writer};
pub use server::{Endpoints, ListenError, Listening, Server};
pub use state::Files;

/// The state of the daemon. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// What must be met for the host to forward.
    pub conditions: Conditions,
    /// What must not stand still.
    pub liveness: Liveness,
}
