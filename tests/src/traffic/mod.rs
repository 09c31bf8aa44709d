//! Traffic between machines, and its losses.

mod backlog;
pub mod capture;
mod checksums;
mod connection;
mod conversation;
mod cpu;
mod datagrams;
mod flood;
pub mod inject;
mod latency;
mod ping;
mod sizes;
mod stream;
mod throughput;
mod transfer;

use std::net::Ipv4Addr;

use crate::namespace::Namespace;

pub use checksums::ChecksumErrors;
pub(crate) use connection::limit;
pub use conversation::{Conversation, Heard};
pub use cpu::{Carriers, CpuTime, stay_on_cpu};
pub use datagrams::Datagrams;
pub use flood::{Flood, PAYLOAD, flood};
pub use latency::{Ends, Latency, latency};
pub use ping::{Ping, Pong};
pub use sizes::Received;
pub use stream::{Losses, Stream};
pub use throughput::{Throughput, throughput};
pub use transfer::{Transfer, transfer, transfer_by};
pub(crate) use transfer::{receive_file, send_file};

/// A machine that sends and receives, by one of its addresses.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// For people.
    pub name: String,
    /// Where it is.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
}

#[cfg(test)]
mod tests;
