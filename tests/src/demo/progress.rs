//! What the demonstration is doing, while it does it.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

/// One moving line at a terminal; elsewhere a line per step.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// Tells what is being done now.
    pub(super) fn step(&self, text: &str) {
        if stderr().is_terminal() {
            self.bar.set_message(text.to_owned());
        } else {
            eprintln!("… {text}");
        }
    }

    /// Prints a result.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
