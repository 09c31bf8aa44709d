//! How long connection tracking keeps an idle TCP connection of which it sees only samples.
//!
//! While data is not acknowledged, it keeps a connection for `nf_conntrack_tcp_timeout_unacknowledged`, five minutes,
//! instead of `nf_conntrack_tcp_timeout_established`, five days. Data counts as acknowledged when a packet acknowledges
//! exactly what was sent last (`tcp_in_window`). Of a sample, that packet is usually missing, for ever.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddrV4;
use std::time::Duration;

use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, ProtoInfo, ProtoInfoTCP};

use super::{Conntrack, is_idle, tuple};

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// What is counted in seconds, by two clocks, may differ by so much.
const SLACK: Duration = Duration::from_secs(2);

/// The time-outs of TCP connections in use, `nf_conntrack_tcp_timeout_*` of sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Of an established connection.
    pub established: Duration,
    /// Of one with data that is not acknowledged.
    pub unacknowledged: Duration,
    /// Of one whose packets are sent again, or whose receiver has no room.
    pub retransmitted: Duration,
    /// Of one that both ends have closed.
    pub closed: Duration,
}

/// What connection tracking knows of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Whether it is established, and neither end has closed it.
    pub is_established: bool,
    /// After so long without a packet it is forgotten.
    pub remaining: Duration,
}

impl Timeouts {
    /// Those of the calling thread's network namespace; none where no connection is tracked.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read() -> io::Result<Option<Self>> {
        if is_idle()? {
            return Ok(None);
        }
        Ok(Some(Self {
            established: timeout("established")?,
            unacknowledged: timeout("unacknowledged")?,
            retransmitted: timeout("max_retrans")?,
            closed: timeout("time_wait")?,
        }))
    }

    /// The time-outs that shorten the life of an established connection.
    fn shorter(&self) -> impl Iterator<Item = Duration> {
        [self.unacknowledged, self.retransmitted].into_iter().filter(|timeout| *timeout < self.established)
    }

    /// The shortest time after which a connection can be forgotten though it is established.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        self.shorter().min()
    }

    /// Whether a connection with that much time `remaining` has lost the rest of it to a shorter time-out, rather than
    /// to idleness since its time was last `prolonged`, so long ago.
    #[must_use]
    pub fn is_shortened(&self, remaining: Duration, prolonged: Option<Duration>) -> bool {
        let is_idle =
            prolonged.is_some_and(|elapsed| remaining + SLACK >= self.established.saturating_sub(elapsed));
        !is_idle && self.shorter().any(|timeout| remaining <= timeout)
    }
}

impl Conntrack {
    /// What is known of a TCP connection's life; none if it is not tracked.
    ///
    /// # Errors
    /// Connection tracking cannot be asked.
    pub fn lifetime(&self, one: SocketAddrV4, other: SocketAddrV4) -> io::Result<Option<Lifetime>> {
        match self.entry(one, other) {
            Ok(attributes) => Ok(Some(lifetime(&attributes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an established connection the time of one that is.
    ///
    /// # Errors
    /// Connection tracking cannot be asked, or has forgotten the connection.
    pub fn prolong(&self, one: SocketAddrV4, other: SocketAddrV4, timeouts: &Timeouts) -> io::Result<()> {
        self.set_remaining(one, other, timeouts.established)?;
        // Whoever closes it meanwhile has its time shortened before or after that. Before, this undoes it.
        match self.lifetime(one, other)? {
            Some(Lifetime { is_established: false, .. }) => self.set_remaining(one, other, timeouts.closed),
            _ => Ok(()),
        }
    }

    fn set_remaining(&self, one: SocketAddrV4, other: SocketAddrV4, remaining: Duration) -> io::Result<()> {
        let seconds = u32::try_from(remaining.as_secs()).unwrap_or(u32::MAX);
        self.change(ConntrackMessage::New(vec![tuple(one, other), ConntrackAttribute::CtaTimeout(seconds)]))
    }
}

fn lifetime(attributes: &[ConntrackAttribute]) -> Lifetime {
    let (mut is_established, mut remaining) = (false, Duration::ZERO);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTimeout(seconds) => remaining = Duration::from_secs((*seconds).into()),
            ConntrackAttribute::CtaProtoInfo(info) => is_established = info.iter().any(is_in_established),
            _ => {}
        }
    }
    Lifetime { is_established, remaining }
}

fn is_in_established(info: &ProtoInfo) -> bool {
    matches!(info, ProtoInfo::TCP(parts) if parts.contains(&ProtoInfoTCP::State(ESTABLISHED)))
}

fn timeout(name: &str) -> io::Result<Duration> {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
    let text = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
    let seconds = text.trim().parse().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::tests::{track, v4};
    use super::*;
    use crate::namespace::in_namespace;

    const DAY: Duration = Duration::from_secs(86_400);
    const USUAL: Timeouts = Timeouts {
        established: DAY.saturating_mul(5),
        unacknowledged: Duration::from_secs(300),
        retransmitted: Duration::from_secs(300),
        closed: Duration::from_secs(120),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_is_shortened_by_data_and_not_by_idleness() {
        assert!(USUAL.is_shortened(seconds(290), None));
        assert!(!USUAL.is_shortened(DAY, None));
        assert!(USUAL.is_shortened(seconds(299), Some(seconds(100))), "there was data since");
        assert!(!USUAL.is_shortened(DAY * 4, Some(DAY)), "idle for a day");
        assert!(
            !USUAL.is_shortened(seconds(200), Some(DAY * 5 - seconds(200))),
            "about to be forgotten, idle"
        );
        assert!(!USUAL.is_shortened(DAY * 5, Some(seconds(100))), "its data was seen to be acknowledged");
    }

    #[test]
    fn nothing_is_shortened_where_established_connections_are_forgotten_sooner() {
        let hasty = Timeouts { established: seconds(60), ..USUAL };
        assert_eq!(hasty.shortest(), None);
        assert!(!hasty.is_shortened(seconds(10), None));
        let mixed = Timeouts { unacknowledged: seconds(5), ..hasty };
        assert_eq!(mixed.shortest(), Some(seconds(5)));
        assert!(mixed.is_shortened(seconds(5), None) && !mixed.is_shortened(seconds(6), None));
    }

    #[test]
    fn an_established_connection_is_prolonged_and_a_closed_one_is_not() {
        in_namespace(async |_| {
            assert_eq!(Timeouts::read().unwrap(), None, "nothing is tracked");
            track("");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (one, other) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
            let (conntrack, timeouts) = (Conntrack::open().unwrap(), Timeouts::read().unwrap().unwrap());
            conntrack.set_remaining(one, other, seconds(300)).unwrap();
            let before = conntrack.lifetime(one, other).unwrap().unwrap();
            assert!(before.is_established && timeouts.is_shortened(before.remaining, None), "{before:?}");
            conntrack.prolong(other, one, &timeouts).unwrap();
            let after = conntrack.lifetime(one, other).unwrap().unwrap();
            assert!(after.is_established && after.remaining > timeouts.established - SLACK, "{after:?}");

            drop(client);
            drop(server);
            conntrack.prolong(one, other, &timeouts).unwrap();
            let closed = conntrack.lifetime(one, other).unwrap().unwrap();
            assert!(!closed.is_established && closed.remaining <= timeouts.closed, "{closed:?}");
            assert_eq!(conntrack.lifetime(SocketAddrV4::new(*one.ip(), 1), other).unwrap(), None);
        });
    }
}
