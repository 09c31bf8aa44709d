//! Idle TCP connections that bypass the stack: connection tracking is to keep them as long as if it saw all of them.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use aya::maps::{self, Array, MapData};
use flannel_common::flow::{Connection, Direction, Flow, FlowKey, KnownFlow, MAX_FLOWS};
use flannel_common::maps::{APPROVED, FLOWS};
use flannel_common::wire::PROTOCOL_TCP;
use flannel_net::conntrack::{Conntrack, Timeouts};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::DatapathError;
use super::tables::{failed, open};

/// How often the time-outs in use are read.
const READ: Duration = Duration::from_secs(2);
/// Connections are looked at so many times in the shortest time after which one can be forgotten.
const LOOKS: u32 = 3;
/// After so many of them, other tasks have a turn.
const TURN: usize = 128;
/// An end that has sent so long after the other one has had no answer: it sends again what is not acknowledged. The
/// answer to anything else takes less, half a second if it is delayed (RFC 1122), and so does the way.
const UNANSWERED: u64 = 1_000_000_000;

/// Keeps connection tracking from forgetting idle connections of which it has seen only samples.
pub(super) struct Keeper {
    conntrack: Conntrack,
    approved: maps::HashMap<MapData, Connection, u64>,
    flows: Array<MapData, KnownFlow>,
    /// The connections that are followed, and when their time was last prolonged. An approval can be displaced before
    /// that was necessary.
    followed: HashMap<Connection, Option<Instant>>,
    looked: Option<Instant>,
    /// Whether a failure was reported.
    has_failed: bool,
}

impl Keeper {
    pub(super) fn open(pin_dir: &Path, conntrack: Conntrack) -> Result<Self, DatapathError> {
        Ok(Self {
            conntrack,
            approved: open(pin_dir, APPROVED, |path| MapData::from_pin(path))?,
            flows: open(pin_dir, FLOWS, |path| MapData::from_pin(path))?,
            followed: HashMap::new(),
            looked: None,
            has_failed: false,
        })
    }

    /// Keeps them, without end.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            match self.keep().await {
                Ok(()) => self.has_failed = false,
                Err(error) if self.has_failed => debug!(%error, "cannot keep idle TCP connections tracked"),
                Err(error) => {
                    warn!(%error, "cannot keep idle TCP connections tracked that bypass the stack; tried again");
                    self.has_failed = true;
                }
            }
            tokio::time::sleep(READ).await;
        }
    }

    async fn keep(&mut self) -> io::Result<()> {
        let Some(timeouts) = Timeouts::read()? else { return Ok(()) };
        let is_due = timeouts.shortest().is_some_and(|shortest| {
            self.looked.is_none_or(|looked| looked.elapsed() + READ > shortest / LOOKS)
        });
        if is_due {
            self.looked = Some(Instant::now());
            self.look(&timeouts).await?;
        }
        Ok(())
    }

    async fn look(&mut self, timeouts: &Timeouts) -> io::Result<()> {
        let approved = self.approved().map_err(io::Error::other)?;
        for connection in &approved {
            self.followed.entry(*connection).or_default();
        }
        let mut shortened = Vec::new();
        let mut gone = Vec::new();
        for (number, (connection, prolonged)) in self.followed.iter().enumerate() {
            if number % TURN == TURN - 1 {
                yield_now().await;
            }
            let (one, other) = ends(connection);
            let lifetime = self.conntrack.lifetime(one, other)?;
            match lifetime.filter(|lifetime| lifetime.is_established) {
                None => gone.push(*connection),
                Some(lifetime) => {
                    let elapsed = prolonged.map(|prolonged| prolonged.elapsed());
                    if timeouts.is_shortened(lifetime.remaining, elapsed) {
                        shortened.push(*connection);
                    } else if !approved.contains(connection) {
                        gone.push(*connection);
                    }
                }
            }
        }
        for connection in gone {
            self.followed.remove(&connection);
        }
        self.prolong(timeouts, shortened).await
    }

    async fn prolong(&mut self, timeouts: &Timeouts, shortened: Vec<Connection>) -> io::Result<()> {
        if shortened.is_empty() {
            return Ok(());
        }
        let senders = self.senders().await.map_err(io::Error::other)?;
        for (number, connection) in shortened.into_iter().enumerate() {
            if number % TURN == TURN - 1 {
                yield_now().await;
            }
            if senders.get(&connection).is_some_and(Senders::has_no_answer) {
                continue;
            }
            let (one, other) = ends(&connection);
            match self.conntrack.prolong(one, other, timeouts) {
                Ok(()) => drop(self.followed.insert(connection, Some(Instant::now()))),
                // It has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn approved(&self) -> Result<HashSet<Connection>, DatapathError> {
        // While programs remove keys, a listing may begin again.
        let keys = self.approved.keys().take(2 * MAX_FLOWS as usize);
        keys.collect::<Result<_, _>>().map_err(failed("read", APPROVED))
    }

    /// When the ends of connections have sent, as far as it is known.
    async fn senders(&self) -> Result<HashMap<Connection, Senders>, DatapathError> {
        let mut senders = HashMap::<_, Senders>::new();
        for place in 0..MAX_FLOWS {
            if (place as usize).is_multiple_of(TURN) {
                yield_now().await;
            }
            let KnownFlow { key, flow } = self.flows.get(&place, 0).map_err(failed("read", FLOWS))?;
            if key.protocol == PROTOCOL_TCP {
                senders.entry(key.connection()).or_default().note(&key, &flow);
            }
        }
        Ok(senders)
    }
}

/// When each end of a connection has last sent, in nanoseconds of `CLOCK_MONOTONIC_COARSE`; zero where that is not
/// known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Senders {
    pod: u64,
    peer: u64,
}

impl Senders {
    fn note(&mut self, key: &FlowKey, flow: &Flow) {
        let at = if key.direction == Direction::Out as u16 { &mut self.pod } else { &mut self.peer };
        *at = flow.entered.at.max(*at);
    }

    /// Whether what one end has sent last was not answered: that end gives the connection up some time, and without the
    /// bypass connection tracking would forget it soon.
    const fn has_no_answer(&self) -> bool {
        self.pod != 0 && self.peer != 0 && self.pod.abs_diff(self.peer) > UNANSWERED
    }
}

/// The ends of a connection, as connection tracking knows them.
pub(super) fn ends(connection: &Connection) -> (SocketAddrV4, SocketAddrV4) {
    let Connection { low, high, low_port, high_port } = *connection;
    (
        SocketAddrV4::new(low.into(), u16::from_be(low_port)),
        SocketAddrV4::new(high.into(), u16::from_be(high_port)),
    )
}

#[cfg(test)]
mod tests {
    use flannel_common::flow::IngressState;

    use super::*;

    #[test]
    fn who_sends_again_and_again_has_no_answer() {
        let mut senders = Senders::default();
        assert!(!senders.has_no_answer());
        let sent = |direction: Direction, at| {
            let key = FlowKey { direction: direction as u16, ..FlowKey::default() };
            (key, Flow { entered: IngressState { at, ..IngressState::default() }, ..Flow::default() })
        };
        for (direction, at, has_no_answer) in [
            (Direction::Out, 10 * UNANSWERED, false),
            (Direction::In, 10 * UNANSWERED + 500_000_000, false),
            (Direction::Out, 12 * UNANSWERED, true),
            (Direction::Out, 11 * UNANSWERED, true),
            (Direction::In, 12 * UNANSWERED, false),
            (Direction::In, 14 * UNANSWERED, true),
        ] {
            let (key, flow) = sent(direction, at);
            senders.note(&key, &flow);
            assert_eq!(senders.has_no_answer(), has_no_answer, "{direction:?} at {at}");
        }
    }
}
