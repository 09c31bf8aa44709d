//! What the machine that does the checks has a machine do.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An order, as a line of JSON where it is for the far machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To run a line of shell on the host. Answer: what it prints.
    Shell(String),
    /// To start flanneld and a pod as it says. Answer: the pod's address.
    Start { endpoint: String, flags: Vec<String> },
    /// To take both away, if they are there.
    Stop,
    /// To end flanneld by SIGKILL, and to start it until it is ready.
    Restart,
    /// To ask flannelctl. Answer: its JSON.
    Ctl(String),
    /// Answer: the log of flanneld.
    Log,
    /// Answer: wrong checksums that the pod has counted.
    ChecksumErrors,
    /// To receive a file in the pod. Answer: the port.
    Listen,
    /// To send a file from the pod. Answer: its digest.
    Send { to: SocketAddrV4, bytes: u64 },
    /// Answer: the digest of the file that was received.
    Received,
    /// To receive datagrams in the pod. Answer: the port.
    Hear,
    /// Answer: first bytes of the datagrams that have arrived since the last time, in their order.
    Heard,
    /// To end.
    End,
}

/// A file by its length and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// Follows orders.
pub(super) trait Obey {
    /// Does it, and answers.
    ///
    /// # Errors
    /// It could not be done.
    fn obey(&mut self, order: &Order) -> Result<Value>;

    /// Does it, and answers by a value of this type.
    ///
    /// # Errors
    /// It could not be done, or the answer is another one.
    fn ask<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T> {
        let answer = self.obey(order)?;
        serde_json::from_value(answer).with_context(|| format!("another answer to {order:?}"))
    }

    /// Runs a line of shell on the host.
    ///
    /// # Errors
    /// It fails.
    fn shell(&mut self, line: &str) -> Result<String> {
        self.ask(&Order::Shell(line.to_owned()))
    }
}
