//! The log: to standard error, with a level that can change while the daemon runs.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Event, Level, Subscriber, info, warn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::DaemonError;
use crate::cli::LogFormat;

/// How much is logged, which can be changed. Of libraries only warnings are logged. Clones share it.
#[derive(Clone)]
pub struct LogLevelHandle {
    initial: Level,
    now: Arc<Mutex<Level>>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for LogLevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogLevelHandle({}, initial {})", self.now(), self.initial)
    }
}

/// Logs to standard error from `level` on. To the journal each line goes with its priority, and without the time, which it
/// has already.
pub fn start_logging(level: Level, format: LogFormat) -> LogLevelHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let is_journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, io::stderr()));
    match format {
        LogFormat::Text if is_journal => {
            registry.with(lines.with_ansi(false).without_time().map_event_format(Prioritised)).init();
        }
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).init(),
        LogFormat::Json if is_journal => {
            registry.with(lines.json().flatten_event(true).map_event_format(Prioritised)).init();
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    LogLevelHandle { initial: level, now: Arc::new(Mutex::new(level)), filter: handle }
}

/// Whether `stream`, as in `JOURNAL_STREAM` (systemd.exec(5)), is that file: a program that is started with another
/// standard error inherits the variable all the same.
fn is_stream(stream: &str, file: impl AsFd) -> bool {
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let metadata = file.as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    metadata.is_ok_and(|file| device.parse() == Ok(file.st_dev()) && inode.parse() == Ok(file.st_ino()))
}

/// Lines that begin with their priority, which the journal takes off (sd-daemon(3)).
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// As syslog numbers them.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn filter(level: Level) -> EnvFilter {
    // The client of Kubernetes logs errors that it returns, too.
    EnvFilter::new(format!("warn,kube_client=off,flannel={level}"))
}

/// The next more verbose level.
fn louder(level: Level) -> Level {
    if level < Level::DEBUG { Level::DEBUG } else { Level::TRACE }
}

impl LogLevelHandle {
    /// The level from which on is logged.
    pub(super) fn now(&self) -> Level {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level of the command line.
    pub(super) const fn initial(&self) -> Level {
        self.initial
    }

    /// Logs from `level` on.
    ///
    /// # Errors
    /// Nothing is logged any more.
    pub(super) fn set(&self, level: Level) -> Result<(), reload::Error> {
        self.filter.reload(filter(level))?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = level;
        info!(%level, "logging from this level on (SIGUSR1: one more, SIGUSR2: as the command line says)");
        Ok(())
    }

    /// Follows the signals that change it, without end.
    pub(super) async fn follow(self, mut signals: LogLevelSignals) {
        loop {
            let level = match signals.next().await {
                Change::Louder => louder(self.now()),
                Change::AsStarted => self.initial,
            };
            if let Err(error) = self.set(level) {
                warn!(%error, "cannot change how much is logged");
            }
        }
    }
}

/// The change a signal asks for.
enum Change {
    Louder,
    AsStarted,
}

/// SIGUSR1 and SIGUSR2.
pub(super) struct LogLevelSignals {
    louder: Signal,
    as_started: Signal,
}

impl LogLevelSignals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        Ok(Self {
            louder: signal(SignalKind::user_defined1()).map_err(DaemonError::Signals)?,
            as_started: signal(SignalKind::user_defined2()).map_err(DaemonError::Signals)?,
        })
    }

    async fn next(&mut self) -> Change {
        tokio::select! {
            _ = self.louder.recv() => Change::Louder,
            _ = self.as_started.recv() => Change::AsStarted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::os::linux::fs::MetadataExt as _;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use tracing::{Level, info, subscriber, warn};

    use super::{Prioritised, is_stream, louder};

    #[test]
    fn the_journal_is_recognised_by_its_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let metadata = std::fs::metadata(format!("/proc/self/fd/{}", here.as_raw_fd())).unwrap();
        let stream = format!("{}:{}", metadata.st_dev(), metadata.st_ino());
        assert!(is_stream(&stream, &here));
        assert!(!is_stream(&stream, &there), "standard error leads elsewhere");
        for other in ["", ":", "8", "8:x"] {
            assert!(!is_stream(other, here.as_fd()), "{other}");
        }
    }

    #[test]
    fn lines_for_the_journal_have_a_priority_and_no_time() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let lines =
            tracing_subscriber::fmt().with_writer(Mutex::new(here)).with_ansi(false).with_target(false);
        let lines = lines.without_time().map_event_format(Prioritised).finish();
        subscriber::with_default(lines, || {
            info!(peers = 2, "ready");
            warn!("etcd is away");
        });
        let mut text = String::new();
        there.read_to_string(&mut text).unwrap();
        assert_eq!(text, "<6> INFO ready peers=2\n<4> WARN etcd is away\n");
    }

    #[test]
    fn louder_and_louder() {
        assert_eq!(louder(Level::INFO), Level::DEBUG);
        assert_eq!(louder(Level::DEBUG), Level::TRACE);
        assert_eq!(louder(Level::TRACE), Level::TRACE);
    }
}
