//! Leases: who owns which subnet, how a host comes by one and how it keeps it.

mod acquire;
mod address_claim;
mod metrics;
mod pool;
mod state;
mod task;

pub use acquire::{AcquireConfig, AcquireError, OwnLease, acquire};
pub use address_claim::{AddressClaim, AddressTaken, Identity};
pub use metrics::LeaseMetrics;
pub use pool::{OutOfSubnets, Pool, PoolError, allocate};
pub use state::LeaseState;
pub use task::{HoldConfig, LeaseHandle, LeaseTask, Lost};
