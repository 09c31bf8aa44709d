//! What programs tell of single packets, as long as somebody asks.

use std::fs::File;
use std::io;
use std::path::Path;

use aya::maps::{Array, Map, MapData, RingBuf};
use flannel_common::maps::{EVENTS, TRACE_FILTER};
use flannel_common::trace::{Event, TraceFilter};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::{Duration, Instant, sleep};
use zerocopy::FromBytes as _;

use super::{DatapathError, PinDir, map_path, monotonic_nanoseconds, tables};

/// For so long the programs answer after the filter was put last.
const ANSWER: Duration = Duration::from_secs(3);
/// How often the filter is put again.
const REPEAT: Duration = Duration::from_secs(1);

/// Pause between two looks into an empty ring.
const PAUSE: Duration = Duration::from_millis(10);

/// Somebody who asks programs about packets. Programs fall silent when this is dropped, and by themselves when it was
/// killed.
pub struct TraceSession {
    filter: TraceFilter,
    asked: Array<MapData, TraceFilter>,
    events: RingBuf<MapData>,
    repeat: Instant,
    /// Only one can hear the answers.
    _lock: Flock<File>,
}

impl TraceSession {
    /// Puts `filter` to the programs pinned in `pin_dir`; [`TraceFilter::until`] is kept up by itself.
    ///
    /// # Errors
    /// Somebody else asks; the maps are not there, or cannot be written.
    pub fn ask(pin_dir: &Path, filter: TraceFilter) -> Result<Self, DatapathError> {
        let unusable = |source| DatapathError::Directory { path: pin_dir.to_owned(), source };
        let directory = File::open(PinDir::maps(pin_dir)).map_err(unusable)?;
        let lock =
            Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => DatapathError::TraceBusy { path: pin_dir.to_owned() },
                errno => unusable(errno.into()),
            })?;
        let asked = tables::open(pin_dir, TRACE_FILTER, |path| MapData::from_pin(path))?;
        let path = map_path(pin_dir, EVENTS);
        let failed = |source| DatapathError::OpenMap { path: path.clone(), source };
        let map = MapData::from_pin(&path).and_then(Map::from_map_data).map_err(failed)?;
        let events = RingBuf::try_from(map).map_err(failed)?;
        let mut session = Self { filter, asked, events, repeat: Instant::now(), _lock: lock };
        // What nobody heard is of no interest any more.
        while session.events.next().is_some() {}
        session.renew()?;
        Ok(session)
    }

    /// The next packet. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn next(&mut self) -> Result<Event, DatapathError> {
        loop {
            if Instant::now() >= self.repeat {
                self.renew()?;
            }
            if let Some(event) = self.events.next().and_then(|bytes| Event::read_from_bytes(&bytes).ok()) {
                return Ok(event);
            }
            sleep(PAUSE).await;
        }
    }

    fn renew(&mut self) -> Result<(), DatapathError> {
        self.repeat = Instant::now() + REPEAT;
        self.put(monotonic_nanoseconds() + ANSWER.as_nanos() as u64)
    }

    fn put(&mut self, until: u64) -> Result<(), DatapathError> {
        let filter = TraceFilter { until, ..self.filter };
        self.asked.set(0, filter, 0).map_err(|source| DatapathError::Map {
            operation: "write",
            map: TRACE_FILTER,
            source,
        })
    }
}

impl Drop for TraceSession {
    fn drop(&mut self) {
        // Where that fails programs fall silent a little later.
        let _ = self.put(0);
    }
}

/// Turns the programs' clock into that of the calendar.
///
/// # Errors
/// The calendar says that it is before 1970.
pub fn time_of_day(monotonic: u64) -> io::Result<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(now.saturating_sub(Duration::from_nanos(monotonic_nanoseconds().saturating_sub(monotonic))))
}
