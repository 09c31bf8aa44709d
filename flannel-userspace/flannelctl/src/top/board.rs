//! What there is to show, as of the last look.

use tokio::time::Instant;

use super::figures::{Bypass, Drop, Figures};
use crate::counters::Counts;
use crate::output::Report as _;
use crate::page::Page;
use crate::peers::{PeerRate, Peers, Whole};
use crate::place::Context;
use crate::status::Status;

/// What was read last, and what became of it since the look before.
pub(super) struct Board {
    last: Reading,
    pub(super) status: Option<Status>,
    pub(super) figures: Figures,
    /// Why the last look failed: what is shown is of an earlier one.
    pub(super) trouble: Option<String>,
    /// Everything about the peer that is opened.
    pub(super) peer: Option<String>,
}

/// The counters at one moment.
struct Reading {
    at: Instant,
    counts: Counts,
    peers: Peers,
}

impl Reading {
    /// The maps are opened anew: a daemon of another version has others.
    fn take(context: &Context<'_>) -> anyhow::Result<Self> {
        let tables = context.place.tables()?;
        Ok(Self { at: Instant::now(), counts: Counts::read(&tables)?, peers: Peers::read(&tables)? })
    }

    fn since(&self, before: &Self) -> Figures {
        let (since, seconds) = (self.counts.since(&before.counts), (self.at - before.at).as_secs_f64());
        Figures {
            peers: self.peers.rates(&before.peers, seconds).rates,
            drops: Drop::all(&self.counts, &since, seconds),
            bypass: Bypass::of(&since),
        }
    }
}

#[cfg(test)]
impl Board {
    /// One with these figures, and without a host.
    pub(super) fn of(figures: Figures) -> Self {
        let last = Reading {
            at: Instant::now(),
            counts: Counts::from(Vec::new()),
            peers: Peers { peers: Vec::new() },
        };
        Self { last, status: None, figures, trouble: None, peer: None }
    }
}

/// What one look found. It may take seconds where the daemon is stuck.
pub(super) struct Look {
    reading: anyhow::Result<Reading>,
    status: anyhow::Result<Status>,
    peer: Option<anyhow::Result<Whole>>,
}

impl Look {
    /// Looks, also at the peer that is opened.
    pub(super) async fn take(context: &Context<'_>, opened: Option<String>) -> Self {
        let reading = Reading::take(context);
        let peer = match opened {
            Some(who) => Some(Whole::read(context, &who).await),
            None => None,
        };
        Self { reading, peer, status: Status::read(context).await }
    }
}

impl Board {
    /// Looks for the first time: nothing has a rate yet.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(super) async fn open(context: &Context<'_>) -> anyhow::Result<Self> {
        let last = Reading::take(context)?;
        let figures = last.since(&last);
        let status = Some(Status::read(context).await?);
        Ok(Self { last, status, figures, trouble: None, peer: None })
    }

    /// Shows what a look found. What could not be read stays as it was.
    pub(super) fn update(&mut self, look: Look) {
        self.trouble = None;
        match look.reading {
            Ok(reading) => {
                self.figures = reading.since(&self.last);
                self.last = reading;
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
        match look.status {
            Ok(status) => self.status = Some(status),
            Err(error) => {
                self.trouble.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        self.peer = look.peer.map(|peer| match peer {
            Ok(whole) => {
                let mut page = Page::new(false, true);
                whole.show(&mut page);
                page.into_text()
            }
            Err(error) => format!("{error:#}"),
        });
    }

    /// What every peer sends and receives.
    pub(super) fn peers(&self) -> &[PeerRate] {
        &self.figures.peers
    }
}
