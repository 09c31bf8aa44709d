//! `flannelctl status` where there are no maps to read: flanneld forwards without programs, or is not so far yet.

use std::path::PathBuf;

use serde::Serialize;

use super::daemon::Daemon;
use super::output::{Page, Report, toned};
use super::place::Context;
use super::running::Running;

/// What there is to tell.
#[derive(Debug, Serialize)]
pub(super) struct Programless {
    pin_dir: PathBuf,
    /// No program is.
    attached: bool,
    /// Why there are no maps, where programs are to be; people see what the daemon waits for.
    trouble: Option<String>,
    daemon: Running,
}

impl Programless {
    /// Asks the daemon; nothing where none explains why there are no maps.
    pub(super) async fn find(context: &Context<'_>, trouble: &anyhow::Error) -> Option<Self> {
        let daemon = Running::from(Daemon::find(context.place).await.ok()??);
        let is_limited = daemon.is_limited();
        let trouble = (!is_limited).then(|| format!("{trouble:#}"));
        let pin_dir = context.place.pin_dir();
        (is_limited || !daemon.is_ready()).then_some(Self { pin_dir, attached: false, trouble, daemon })
    }

    /// Whether the daemon has done what it was to do.
    pub(super) const fn is_up(&self) -> bool {
        self.daemon.is_ready()
    }
}

impl Report for Programless {
    fn show(&self, page: &mut Page) {
        page.pairs([("flanneld", toned(self.daemon.tone(), self.daemon.text()))]);
        self.daemon.show_reasons(page);
    }
}
