//! The control socket, by which the operator asks a running daemon and tells it what to do.
//!
//! One connection is one question: a line of JSON ([`Request`]), answered by a line of JSON and the end. Both ends live
//! here: [`Listener`] for the daemon, [`ask`] for whoever asks it. What the daemon does about a request does not.

mod client;
mod protocol;
mod server;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use flannel_model::config::control_socket;

pub use client::{AskError, Told, ask};
pub use protocol::{
    Claimed, Cloud, CloudTable, Condition, ConditionState, HeldLease, Left, LogLevel, LogLevels, NamedNode,
    NodeNames, Registry, RegistryKind, RegistryState, Released, Reloaded, Request, RuleSettings,
    ServedConfiguration, Settings, Status, UnknownLevel, WantedLevel,
};
pub use server::{Listener, Reply, Serve, SocketError};

/// Where the daemon of the network below `etcd_prefix` listens in this process's network namespace.
///
/// # Errors
/// `/proc` does not tell which namespace that is.
pub fn path(etcd_prefix: &str) -> io::Result<PathBuf> {
    // Namespaces are a thread's.
    let namespace = std::fs::metadata("/proc/thread-self/ns/net")?;
    Ok(control_socket(etcd_prefix, namespace.ino()))
}

#[cfg(test)]
mod tests;
