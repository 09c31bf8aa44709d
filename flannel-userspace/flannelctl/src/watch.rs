//! `--watch`: one answer after the other, until Ctrl-C.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::exit::Outcome;
use super::output::{Printer, Report};

/// Whether to look once or again and again.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Watch {
    /// Keep running, and look again every second, or every so many seconds. Counters are then shown per second.
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    watch: Option<u64>,
}

impl Watch {
    /// The pause between two looks; nothing for a single one.
    pub(super) fn pause(self) -> Option<Duration> {
        self.watch.map(Duration::from_secs)
    }

    /// Prints what `look` finds. If the first look fails there is no second one.
    ///
    /// # Errors
    /// The first look fails, or nobody reads.
    pub(super) async fn show<R: Report>(
        self,
        printer: Printer,
        mut look: impl AsyncFnMut() -> anyhow::Result<R>,
    ) -> anyhow::Result<Outcome> {
        let first = look().await?;
        match self.pause() {
            None => printer.print(&first),
            Some(pause) => {
                printer.redraw(&Ok(first))?;
                again(printer, pause, look).await
            }
        }
    }
}

/// Prints what `look` finds after each pause, which may be that it fails: what is watched may come back.
///
/// # Errors
/// Nobody reads.
pub(super) async fn again<R: Report>(
    printer: Printer,
    pause: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<R>,
) -> anyhow::Result<Outcome> {
    loop {
        sleep(pause).await;
        printer.redraw(&look().await)?;
    }
}
