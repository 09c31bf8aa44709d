//! The log: to standard error, with a level that can change while the daemon runs.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Level, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;
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

/// Logs to standard error from `level` on.
pub fn start_logging(level: Level, format: LogFormat) -> LogLevelHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    LogLevelHandle { initial: level, now: Arc::new(Mutex::new(level)), filter: handle }
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
    use tracing::Level;

    use super::louder;

    #[test]
    fn louder_and_louder() {
        assert_eq!(louder(Level::INFO), Level::DEBUG);
        assert_eq!(louder(Level::DEBUG), Level::TRACE);
        assert_eq!(louder(Level::TRACE), Level::TRACE);
    }
}
