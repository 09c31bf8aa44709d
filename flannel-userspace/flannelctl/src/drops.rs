//! `flannelctl drops`: packets that were dropped, why, and what to do about it.

use std::time::Duration;

use clap::Args;
use flannel_common::maps::Count;
use flannel_common::{Hook, Reason, Verdict};
use serde::Serialize;
use tokio::time::sleep;

use super::counters::{Counts, Meter};
use super::exit::Outcome;
use super::output::Report;
use super::page::{Page, Tone, cell, toned};
use super::place::Context;
use super::table::{Column, Key, Row, Sorting};
use super::watch::{Watch, again};
use super::{remedy, units};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Keep running, and print packets as they are dropped.
    #[arg(long, conflicts_with_all = ["watch", "sort"])]
    follow: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Dropped>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let printer = self.sorting.printer(context.printer);
        if self.follow {
            return follow(context).await;
        }
        let Some(pause) = self.watch.pause() else {
            let mut drops = Drops::of(&Counts::read(&context.place.tables()?)?);
            self.sorting.sort(&mut drops.drops);
            return printer.print(&drops);
        };
        let mut meter = Meter::start(context)?;
        again(printer, pause, async || {
            let (since, seconds) = meter.read(context)?;
            let mut rates =
                since.rates(seconds, |count, reason| reason.verdict() == Verdict::Drop && count.packets > 0);
            self.sorting.sort(&mut rates.rates);
            Ok(rates)
        })
        .await
    }
}

async fn follow(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let mut meter = Meter::start(context)?;
    loop {
        sleep(PAUSE).await;
        let (since, _) = meter.read(context)?;
        for drop in Drops::of(&since).drops {
            context.printer.print_next(&drop)?;
        }
    }
}

/// What was dropped.
#[derive(Debug, Serialize)]
pub(super) struct Drops {
    drops: Vec<Dropped>,
}

#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    hook: &'static str,
    reason: &'static str,
    packets: u64,
    bytes: u64,
    help: &'static str,
    remedy: &'static str,
}

impl Drops {
    /// The drops among the counters.
    pub(super) fn of(counts: &Counts) -> Self {
        let dropped = |(_, reason, count): &&(Hook, Reason, Count)| {
            reason.verdict() == Verdict::Drop && count.packets > 0
        };
        let drops = counts.iter().filter(dropped).map(|(hook, reason, count)| Dropped {
            hook: hook.label(),
            reason: reason.label(),
            packets: count.packets,
            bytes: count.bytes,
            help: reason.help(),
            remedy: remedy::of(*reason).unwrap_or_default(),
        });
        Self { drops: drops.collect() }
    }
}

impl Row for Dropped {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("hook", "HOOK", |drop| cell(drop.hook), |drop| Key::text(drop.hook)),
        Column::words(
            "reason",
            "REASON",
            |drop| toned(Tone::Bad, drop.reason),
            |drop| Key::text(drop.reason),
        ),
        Column::figures("packets", "PACKETS", |drop| cell(drop.packets), |drop| Key::amount(drop.packets)),
        Column::figures(
            "bytes",
            "BYTES",
            |drop| cell(units::bytes(drop.bytes)),
            |drop| Key::amount(drop.bytes),
        ),
    ];
}

impl Report for Drops {
    fn show(&self, page: &mut Page) {
        if self.drops.is_empty() {
            page.toned_line(Tone::Good, "no packet was dropped");
            return;
        }
        page.table(&self.drops);
        let mut told: Vec<&str> = Vec::new();
        for drop in &self.drops {
            if !told.contains(&drop.reason) {
                told.push(drop.reason);
                page.heading(&format!("{}: {}", drop.reason, drop.help));
                page.line(format!("  {}", drop.remedy));
            }
        }
    }
}

impl Report for Dropped {
    fn show(&self, page: &mut Page) {
        let Self { hook, reason, packets, bytes, help, .. } = self;
        page.toned_line(Tone::Bad, &format!("{hook} {reason} +{packets} ({}): {help}", units::bytes(*bytes)));
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::maps::Count;
    use flannel_common::{Hook, Reason};
    use serde_json::json;

    use super::{Counts, Drops};
    use crate::output::Report as _;

    fn drops() -> Drops {
        let count = |packets| Count { packets, bytes: packets * 100 };
        Drops::of(&Counts::from(vec![
            (Hook::Encap, Reason::Forwarded, count(9)),
            (Hook::Encap, Reason::NoPeer, count(3)),
            (Hook::Decap, Reason::NotTunnel, count(5)),
            (Hook::Decap, Reason::Fragment, count(0)),
        ]))
    }

    #[test]
    fn only_drops_are_shown_with_remedy() {
        assert_eq!(
            drops().text(),
            " HOOK   REASON   PACKETS  BYTES
 encap  no_peer        3  300 B

no_peer: The destination is in no subnet leased by a peer.
  See `flannelctl leases` for who leases the destination. If nobody does, no host has such a pod any more; if somebody does, `flannelctl verify` says why it is not in the map.
"
        );
        let value = serde_json::to_value(drops()).unwrap();
        assert_eq!(value["drops"][0]["packets"], 3);
        assert_eq!(
            value["drops"][0].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["bytes", "help", "hook", "packets", "reason", "remedy"]
        );
        assert_eq!(serde_json::to_value(Drops { drops: Vec::new() }).unwrap(), json!({"drops": []}));
    }

    #[test]
    fn what_is_followed_is_one_line() {
        let text = drops().drops[0].text();
        assert_eq!(text, "encap no_peer +3 (300 B): The destination is in no subnet leased by a peer.\n");
    }
}
