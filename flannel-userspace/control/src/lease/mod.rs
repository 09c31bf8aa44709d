//! Leases: who owns which subnet, how a host acquires one and keeps it.

mod acquire;
mod address_claim;
mod allocation;
mod metrics;
mod own;
mod owner;
mod pool;
mod state;
mod task;

pub use acquire::{AcquireConfig, AcquireError, OwnLease, acquire};
pub use address_claim::{AddressClaim, AddressTaken};
pub use allocation::Allocation;
pub use metrics::LeaseMetrics;
pub use own::Own;
pub(crate) use own::mac_as_text;
pub use owner::{Keeping, Last, LeaseOwner};
pub use pool::{OutOfSubnets, Pool, PoolError, allocate};
pub use state::LeaseState;
pub(crate) use task::LeaseTask;
pub use task::{HoldConfig, LeaseHandle, LeaseHolder, LeaseOrder, Lost, WithdrawError, Withdrawn};
