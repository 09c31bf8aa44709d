//! The signals the daemon handles.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

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

/// SIGHUP: the operator ends the hold of a mass deletion.
pub(super) fn hangups() -> Result<UnboundedReceiver<()>, DaemonError> {
    let mut hangups = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move { while hangups.recv().await.is_some() && sender.send(()).is_ok() {} });
    Ok(receiver)
}
