//! Leases in a real etcd: who gets which subnet, and what stands there.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod acquire;
mod certificates;
mod daemon;
