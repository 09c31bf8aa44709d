//! How a running network takes faults and abuse: packets are counted, not pings, and every scenario prints what it cost
//! (`cargo xtask test --suite fault -- --nocapture`).
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod boot;
mod conditions;
mod etcd;
mod firewall;
mod hostile;
mod kernel;
mod lease;
mod others;
mod policies;
mod scenario;
mod sight;
mod underlay;
