//! TCP connections that could bypass the stack: whether connection tracking allows it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::maps::{self, MapData, RingBuf};
use flannel_common::flow::Connection;
use flannel_common::maps::{APPROVED, CANDIDATES};
use flannel_net::conntrack::{Conntrack, Tracking};
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};
use zerocopy::FromBytes as _;

use super::DatapathError;
use super::tables::{failed, open};

/// A connection that was not approved is not checked again for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many of them are remembered.
const REMEMBERED: usize = 4096;

/// Approves connections that may bypass the stack.
pub struct Approver {
    candidates: AsyncFd<RingBuf<MapData>>,
    approved: maps::HashMap<MapData, Connection, u64>,
    conntrack: Conntrack,
    refused: HashMap<Connection, Instant>,
}

/// Connections cannot be approved.
#[derive(Debug, Error)]
pub enum ApproverError {
    /// A map cannot be opened.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Connection tracking cannot be asked.
    #[error("cannot ask connection tracking; without that, no TCP connection bypasses the stack")]
    Conntrack(#[source] io::Error),
    /// The announcements cannot be waited for.
    #[error(
        "cannot wait for connections that could bypass the stack; TCP connections go through it, as with --pod-bypass=off"
    )]
    Wait(#[source] io::Error),
}

impl Approver {
    /// Listens to the programs pinned below `pin_dir`, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The maps are not there; connection tracking cannot be asked.
    pub fn open(pin_dir: &Path) -> Result<Self, ApproverError> {
        let candidates: RingBuf<MapData> = open(pin_dir, CANDIDATES, |path| MapData::from_pin(path))?;
        // SAFETY: the ring owns its descriptor, and keeps it for as long as it lives.
        let candidates = unsafe { AsyncFd::register_with_interest(candidates, Interest::READABLE) };
        Ok(Self {
            candidates: candidates.map_err(|error| ApproverError::Wait(error.into()))?,
            approved: open(pin_dir, APPROVED, |path| MapData::from_pin(path))?,
            conntrack: Conntrack::open().map_err(ApproverError::Conntrack)?,
            refused: HashMap::new(),
        })
    }

    /// Approves connections, without end.
    pub async fn run(mut self) -> Infallible {
        loop {
            match self.next().await {
                Ok(connections) => connections.into_iter().for_each(|connection| self.consider(connection)),
                Err(error) => {
                    warn!(%error, "cannot receive connections to approve: no further TCP connection bypasses the stack");
                    return std::future::pending().await;
                }
            }
        }
    }

    async fn next(&mut self) -> io::Result<Vec<Connection>> {
        let mut ready = self.candidates.readable_mut().await?;
        let ring = ready.get_inner_mut();
        let mut connections = Vec::new();
        while let Some(item) = ring.next() {
            connections.extend(Connection::read_from_bytes(&item).ok());
        }
        ready.clear_ready();
        Ok(connections)
    }

    fn consider(&mut self, connection: Connection) {
        if self.refused.get(&connection).is_some_and(|since| since.elapsed() < PATIENCE) {
            return;
        }
        let (one, other) = ends(&connection);
        match self.conntrack.be_liberal(one, other) {
            Ok(Tracking::Liberal | Tracking::Idle) => {
                self.refused.remove(&connection);
                if let Err(error) = self.approve(connection) {
                    warn!(%error, %one, %other, "cannot approve of a connection");
                }
            }
            Ok(Tracking::Unknown) => {
                debug!(%one, %other, "connection tracking knows others, but not this connection");
                self.refuse(connection);
            }
            Ok(Tracking::Involved) => {
                debug!(%one, %other, "connection tracking changes packets of this connection, or a helper reads them");
                self.refuse(connection);
            }
            Err(error) => {
                debug!(%error, %one, %other, "cannot ask connection tracking");
                self.refuse(connection);
            }
        }
    }

    fn approve(&mut self, connection: Connection) -> Result<(), DatapathError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.approved.insert(connection, now, 0).map_err(failed("write", APPROVED))
    }

    fn refuse(&mut self, connection: Connection) {
        if self.refused.len() >= REMEMBERED {
            self.refused.clear();
        }
        self.refused.insert(connection, Instant::now());
    }
}

fn ends(connection: &Connection) -> (SocketAddrV4, SocketAddrV4) {
    let Connection { low, high, low_port, high_port } = *connection;
    (
        SocketAddrV4::new(low.into(), u16::from_be(low_port)),
        SocketAddrV4::new(high.into(), u16::from_be(high_port)),
    )
}
