//! The daemon and the command line of flannel-ebpf.
//!
//! etcd says who owns which subnet ([`registry`], [`lease`]); [`peers`] turns that into a table of peers;
//! a [`backend`] turns each peer into objects of the kernel, which [`kernel`] and [`datapath`] put there;
//! [`reconcile`] keeps the two equal. [`daemon`] puts all of it together.

pub mod backend;
pub mod cli;
mod compact;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod down;
pub mod file;
mod hooks;
pub mod kernel;
pub mod lease;
pub mod observe;
mod pauses;
pub mod peers;
pub mod privileges;
pub mod reconcile;
pub mod registry;
pub mod remembered;
pub mod rules;

use tokio::time::{Instant, sleep_until};

/// Waits until then; for ever where there is no such time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
