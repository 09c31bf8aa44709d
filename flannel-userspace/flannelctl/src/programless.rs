//! `flannelctl status` where flanneld forwards without programs: there are no maps to read.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::output::{Page, Report, toned};
use super::place::Context;
use super::running::Running;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Programless {
    pin_dir: PathBuf,
    /// No program is.
    attached: bool,
    daemon: Running,
}

impl Programless {
    /// Asks the daemon whether it works without programs; `None` if none says so.
    pub(super) fn find(context: &Context<'_>, health: Option<SocketAddr>) -> Option<Self> {
        let pin_dir = context.place.pin_dir();
        let daemon = Running::find(&pin_dir, health, None)?;
        daemon.is_limited().then_some(Self { pin_dir, attached: false, daemon })
    }

    /// Whether the daemon is ready.
    pub(super) fn is_up(&self) -> bool {
        self.daemon.is_ready()
    }
}

impl Report for Programless {
    fn show(&self, page: &mut Page) {
        page.pairs([("flanneld", toned(self.daemon.tone(), self.daemon.text()))]);
        self.daemon.show_reasons(page);
    }
}
