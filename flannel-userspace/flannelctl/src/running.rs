//! The running daemon as `flannelctl status` shows it.

use std::net::SocketAddr;
use std::path::Path;

use ipnetwork::Ipv4Network;
use serde::Serialize;

use super::daemon::{Daemon, Failing, Readiness};
use super::output::{Page, Tone};

/// The daemon, and its state.
#[derive(Debug, Serialize)]
pub(super) struct Running {
    pub(super) pid: i32,
    #[serde(flatten)]
    pub(super) readiness: Readiness,
}

impl Running {
    /// The daemon of a pin directory, if one runs; see [`Daemon`].
    pub(super) fn find(
        pin_dir: &Path,
        health: Option<SocketAddr>,
        subnet: Option<Ipv4Network>,
    ) -> Option<Self> {
        let daemon = Daemon::find(pin_dir)?;
        Some(Self { pid: daemon.pid, readiness: daemon.readiness(health, subnet) })
    }

    /// Whether it is ready, as far as known.
    pub(super) fn is_ready(&self) -> bool {
        self.readiness.ready != Some(false)
    }

    pub(super) const fn is_limited(&self) -> bool {
        !self.readiness.limits.is_empty()
    }

    /// What is not as it should be, and why.
    pub(super) fn show_reasons(&self, page: &mut Page) {
        for Failing { condition, reason, seconds } in &self.readiness.failing {
            page.toned_line(Tone::Bad, &format!("not {condition} for {seconds} s: {reason}"));
        }
        for limit in &self.readiness.limits {
            page.toned_line(Tone::Warning, limit);
        }
    }

    pub(super) const fn tone(&self) -> Tone {
        match self.readiness.ready {
            Some(true) => Tone::Good,
            Some(false) => Tone::Bad,
            None => Tone::Warning,
        }
    }

    pub(super) fn text(&self) -> String {
        let Readiness { ready, pending, stale, .. } = &self.readiness;
        let state = match ready {
            Some(true) if *stale == Some(true) => "ready; etcd is away".to_owned(),
            Some(true) => "ready".to_owned(),
            Some(false) => format!("not ready: {}", pending.join(", ")),
            None => "running; whether it is ready is not known".to_owned(),
        };
        format!("{state} (process {})", self.pid)
    }
}
