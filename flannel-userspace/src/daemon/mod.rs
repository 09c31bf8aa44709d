//! The daemon's life, read from top to bottom: what it is told, what it takes, what it keeps, how it ends.

mod configuration;
mod error;
mod exclusive;
mod report;
mod signals;
mod start;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::cli::flanneld::Options;
use crate::lease::Lost;
use crate::privileges;
use crate::reconcile::Loop;

pub use error::DaemonError;
pub use exclusive::ExclusiveError;
pub use report::{Chain, start_logging};
use signals::Signals;
use start::Started;

/// Runs the daemon until it is told to end; then the datapath goes on without it.
///
/// # Errors
/// It cannot begin, or its lease is another host's.
pub async fn run(options: Options) -> Result<(), DaemonError> {
    for warning in &options.warnings {
        warn!("{warning}");
    }
    privileges::check()?;
    let mut signals = Signals::new()?;
    let outcome = tokio::select! {
        outcome = serve(options) => outcome,
        signal = signals.next() => {
            info!(signal, "ending; the datapath goes on forwarding");
            Ok(())
        }
    };
    report::notify(&[sd_notify::NotifyState::Stopping]);
    outcome
}

async fn serve(options: Options) -> Result<(), DaemonError> {
    let (synced, first_sync) = oneshot::channel();
    let Started { reconciler, hold, presence, held, subnet_file, exclusive: _exclusive } =
        start::start(options, synced).await?;
    let mut holding = tokio::spawn(hold.run());
    tokio::spawn(presence.run(held));
    let mut reconciling = tokio::spawn(Loop::new(reconciler).run());
    tokio::spawn(async move {
        if first_sync.await.is_ok() {
            info!(subnet_file = %subnet_file.display(), "ready: every known peer is reached");
            report::notify(&[sd_notify::NotifyState::Ready]);
        }
    });
    let outcome = tokio::select! {
        lost = &mut holding => match lost {
            Ok(lost) => Err(DaemonError::Lost(lost)),
            Err(task) => Err(DaemonError::Task(task)),
        },
        ended = &mut reconciling => match ended {
            Ok(never) => match never {},
            Err(task) => Err(DaemonError::Task(task)),
        },
    };
    if let Err(DaemonError::Lost(Lost::Taken { .. } | Lost::Contested { .. })) = &outcome {
        error!("ending; the datapath goes on forwarding by the peers known so far");
    }
    outcome
}
