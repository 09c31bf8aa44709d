//! The signals the daemon handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::DaemonError;

/// SIGTERM and SIGINT, as with stock flannel.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(DaemonError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?,
        })
    }

    /// Waits for one, and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, by which programs that replace files say that they have.
pub(super) struct Hangups(Signal);

impl Hangups {
    pub(super) fn new() -> Result<Self, DaemonError> {
        signal(SignalKind::hangup()).map(Self).map_err(DaemonError::Signals)
    }

    /// Waits for one; nothing if none will come.
    pub(super) async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}
