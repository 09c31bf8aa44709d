//! `flannelctl status` where there are no maps to read: flanneld forwards without programs, is not so far yet, or does not
//! run and has left nothing.

use std::path::PathBuf;

use serde::Serialize;

use super::cloud;
use super::daemon::Daemon;
use super::exit::Code;
use super::output::Report;
use super::page::{Page, Tone, toned};
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
    daemon: Option<Running>,
}

impl Programless {
    /// Asks the daemon; nothing where it may be that there are maps all the same.
    pub(super) async fn find(context: &Context<'_>, trouble: &anyhow::Error) -> Option<Self> {
        let daemon = Daemon::find(context.place).await.ok()?.map(Running::from);
        let is_limited = daemon.as_ref().is_some_and(Running::is_limited);
        let is_explained = match &daemon {
            Some(daemon) => is_limited || !daemon.is_ready(),
            None => Code::of(trouble) == Code::NoDatapath,
        };
        let trouble = (!is_limited).then(|| format!("{trouble:#}"));
        let pin_dir = context.place.pin_dir();
        is_explained.then_some(Self { pin_dir, attached: false, trouble, daemon })
    }

    pub(super) const fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether the daemon has done what it was to do.
    pub(super) fn is_up(&self) -> bool {
        self.daemon.as_ref().is_some_and(Running::is_ready)
    }
}

impl Report for Programless {
    fn show(&self, page: &mut Page) {
        match &self.daemon {
            Some(daemon) => {
                let cloud = daemon.cloud().into_iter().flat_map(cloud::pairs);
                page.pairs(cloud.chain([("flanneld", toned(daemon.tone(), daemon.text()))]));
                for (tone, trouble) in daemon.troubles() {
                    page.toned_line(tone, &trouble);
                }
            }
            None => page.toned_line(Tone::Bad, self.trouble.as_deref().unwrap_or_default()),
        }
    }
}
