//! The signals the daemon handles.

use flannel_control::reconcile::Order;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

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
pub(super) fn hangups(orders: UnboundedSender<Order>) -> Result<(), DaemonError> {
    let mut hangups = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    tokio::spawn(async move {
        // How many peers are let go is told by the log alone.
        while hangups.recv().await.is_some() && orders.send(Order::Release(oneshot::channel().0)).is_ok() {}
    });
    Ok(())
}
