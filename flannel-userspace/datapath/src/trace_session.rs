//! Reports of single packets, while a trace or capture runs.

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

/// How long programs report after the filter was last renewed.
const ANSWER: Duration = Duration::from_secs(3);
/// How often the filter is renewed.
const REPEAT: Duration = Duration::from_secs(1);

/// Pause between two looks into an empty ring.
const PAUSE: Duration = Duration::from_millis(10);

/// A trace of packets. Programs stop reporting when this is dropped, and by themselves if the process was killed.
pub struct TraceSession {
    filter: TraceFilter,
    asked: Array<MapData, TraceFilter>,
    events: RingBuf<MapData>,
    repeat: Instant,
    /// Only one session can read the reports.
    _lock: Flock<File>,
}

impl TraceSession {
    /// Sets `filter` for the programs pinned in `pin_dir`, and keeps [`TraceFilter::until`] current.
    ///
    /// # Errors
    /// Another session runs; the maps do not exist, or cannot be written.
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
        // Reports of an earlier session are discarded.
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
        // If that fails, programs stop a little later.
        let _ = self.put(0);
    }
}

/// Converts the programs' clock to calendar time.
///
/// # Errors
/// The calendar says that it is before 1970.
pub fn time_of_day(monotonic: u64) -> io::Result<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(now.saturating_sub(Duration::from_nanos(monotonic_nanoseconds().saturating_sub(monotonic))))
}
