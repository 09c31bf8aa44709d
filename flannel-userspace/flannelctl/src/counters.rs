//! `flannelctl counters`: packets by verdict and reason, in total or per second.

use clap::Args;
use flannel_common::maps::Count;
use flannel_common::{Hook, Reason, Verdict};
use flannel_datapath::{DatapathError, Tables};
use serde::Serialize;
use tokio::time::Instant;

use super::exit::Outcome;
use super::output::Report;
use super::page::{Page, Tone, cell, toned};
use super::place::Context;
use super::table::{Column, Key, Row, Sorting};
use super::units;
use super::watch::{Watch, again};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also reasons whose counters are zero.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Counter>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let printer = self.sorting.printer(context.printer);
        let Some(pause) = self.watch.pause() else {
            let mut counters = Counts::read(&context.place.tables()?)?.counters(self.all);
            self.sorting.sort(&mut counters.counters);
            return printer.print(&counters);
        };
        let mut meter = Meter::start(context)?;
        again(printer, pause, async || {
            let (since, seconds) = meter.read(context)?;
            let mut rates = since.rates(seconds, |count, _| self.all || count.packets > 0);
            self.sorting.sort(&mut rates.rates);
            Ok(rates)
        })
        .await
    }
}

/// What is counted between two looks.
pub(super) struct Meter(Instant, Counts);

impl Meter {
    /// Looks for the first time.
    pub(super) fn start(context: &Context<'_>) -> anyhow::Result<Self> {
        Ok(Self(Instant::now(), Counts::read(&context.place.tables()?)?))
    }

    /// What was counted since the last look, and how many seconds ago that was.
    pub(super) fn read(&mut self, context: &Context<'_>) -> anyhow::Result<(Counts, f64)> {
        let now = Self(Instant::now(), Counts::read(&context.place.tables()?)?);
        let before = std::mem::replace(self, now);
        Ok((self.1.since(&before.1), (self.0 - before.0).as_secs_f64()))
    }
}

/// Every counter at one moment.
#[derive(Clone, Debug)]
pub(super) struct Counts(Vec<(Hook, Reason, Count)>);

#[cfg(test)]
impl From<Vec<(Hook, Reason, Count)>> for Counts {
    fn from(counts: Vec<(Hook, Reason, Count)>) -> Self {
        Self(counts)
    }
}

impl Counts {
    /// Reads the maps.
    pub(super) fn read(tables: &Tables) -> Result<Self, DatapathError> {
        let slots = Hook::ALL.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| (*hook, *reason)));
        let counts = slots.map(|(hook, reason)| Ok((hook, reason, tables.count(hook, reason)?)));
        Ok(Self(counts.collect::<Result<_, DatapathError>>()?))
    }

    /// Hook, reason, and count.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Hook, Reason, Count)> {
        self.0.iter()
    }

    /// What was counted since `before`. A datapath that was created again since has started at zero.
    pub(super) fn since(&self, before: &Self) -> Self {
        let since = |(now, before): (&(Hook, Reason, Count), &(Hook, Reason, Count))| {
            let count = Count {
                packets: now.2.packets.checked_sub(before.2.packets).unwrap_or(now.2.packets),
                bytes: now.2.bytes.checked_sub(before.2.bytes).unwrap_or(now.2.bytes),
            };
            (now.0, now.1, count)
        };
        Self(self.0.iter().zip(&before.0).map(since).collect())
    }

    /// What to show; `all` includes reasons whose counters are zero.
    pub(super) fn counters(&self, all: bool) -> Counters {
        let shown = self.0.iter().filter(|(_, _, count)| all || count.packets > 0);
        Counters {
            counters: shown.map(|(hook, reason, count)| Counter::new(*hook, *reason, *count)).collect(),
        }
    }

    /// What was counted in so many seconds, by the second; of the counters that `is_asked` for.
    pub(super) fn rates(&self, seconds: f64, is_asked: impl Fn(&Count, Reason) -> bool) -> Rates {
        let shown = self.0.iter().filter(|(_, reason, count)| is_asked(count, *reason));
        let rates = shown.map(|(hook, reason, count)| Rate {
            hook: hook.label(),
            verdict: reason.verdict().label(),
            reason: reason.label(),
            packets_per_second: units::per_second(count.packets, seconds),
            bytes_per_second: units::per_second(count.bytes, seconds),
        });
        Rates { seconds: (seconds * 1000.0).round() / 1000.0, rates: rates.collect() }
    }
}

/// What became of the packets.
#[derive(Debug, Serialize)]
pub(super) struct Counters {
    counters: Vec<Counter>,
}

#[derive(Debug, Serialize)]
pub(super) struct Counter {
    hook: &'static str,
    verdict: &'static str,
    reason: &'static str,
    packets: u64,
    bytes: u64,
    help: &'static str,
}

impl Counter {
    const fn new(hook: Hook, reason: Reason, count: Count) -> Self {
        Self {
            hook: hook.label(),
            verdict: reason.verdict().label(),
            reason: reason.label(),
            packets: count.packets,
            bytes: count.bytes,
            help: reason.help(),
        }
    }
}

/// The verdict, in its colour.
fn verdict(label: &'static str) -> comfy_table::Cell {
    let known = [(Verdict::Forward, Tone::Good), (Verdict::Pass, Tone::Aside), (Verdict::Drop, Tone::Bad)];
    let tone = known.iter().find(|(verdict, _)| verdict.label() == label);
    tone.map_or_else(|| cell(label), |(_, tone)| toned(*tone, label))
}

impl Row for Counter {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("hook", "HOOK", |counter| cell(counter.hook), |counter| Key::text(counter.hook)),
        Column::words(
            "verdict",
            "VERDICT",
            |counter| verdict(counter.verdict),
            |counter| Key::text(counter.verdict),
        ),
        Column::words(
            "reason",
            "REASON",
            |counter| cell(counter.reason),
            |counter| Key::text(counter.reason),
        ),
        Column::figures(
            "packets",
            "PACKETS",
            |counter| cell(counter.packets),
            |counter| Key::amount(counter.packets),
        ),
        Column::figures(
            "bytes",
            "BYTES",
            |counter| cell(units::bytes(counter.bytes)),
            |counter| Key::amount(counter.bytes),
        ),
        Column::explanation(|counter| cell(counter.help)),
    ];
}

impl Report for Counters {
    fn show(&self, page: &mut Page) {
        page.table(&self.counters);
    }
}

/// The counters per second.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    /// Over how long.
    seconds: f64,
    pub(super) rates: Vec<Rate>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rate {
    pub(super) hook: &'static str,
    verdict: &'static str,
    pub(super) reason: &'static str,
    pub(super) packets_per_second: u64,
    pub(super) bytes_per_second: u64,
}

impl Row for Rate {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("hook", "HOOK", |rate| cell(rate.hook), |rate| Key::text(rate.hook)),
        Column::words("verdict", "VERDICT", |rate| verdict(rate.verdict), |rate| Key::text(rate.verdict)),
        Column::words("reason", "REASON", |rate| cell(rate.reason), |rate| Key::text(rate.reason)),
        Column::figures(
            "packets",
            "PACKETS/S",
            |rate| cell(rate.packets_per_second),
            |rate| Key::amount(rate.packets_per_second),
        ),
        Column::figures(
            "bytes",
            "RATE",
            |rate| cell(units::bits_per_second(rate.bytes_per_second)),
            |rate| Key::amount(rate.bytes_per_second),
        ),
    ];
}

impl Report for Rates {
    fn show(&self, page: &mut Page) {
        page.table(&self.rates);
        if self.rates.is_empty() {
            page.line(" nothing was counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::maps::Count;
    use flannel_common::{Hook, Reason};
    use serde_json::json;

    use super::{Counter, Counts, Rate, Row as _};
    use crate::output::Report as _;

    fn counts(packets: u64) -> Counts {
        let count = |packets, bytes| Count { packets, bytes };
        Counts(vec![
            (Hook::Encap, Reason::Forwarded, count(packets, packets * 1000)),
            (Hook::Decap, Reason::NoPeer, count(2, 84)),
            (Hook::Bridge, Reason::UnknownPort, Count::default()),
        ])
    }

    #[test]
    fn table_and_json_of_counters() {
        let counters = counts(30).counters(false);
        assert_eq!(
            counters.text(),
            " HOOK   VERDICT  REASON     PACKETS     BYTES
 encap  forward  forwarded       30  29.2 KiB  The packet was forwarded by the program.
 decap  drop     no_peer          2      84 B  The destination is in no subnet leased by a peer.
"
        );
        assert_eq!(
            serde_json::to_value(&counters).unwrap()["counters"][1],
            json!({
                "hook": "decap", "verdict": "drop", "reason": "no_peer", "packets": 2, "bytes": 84,
                "help": "The destination is in no subnet leased by a peer.",
            })
        );
        assert_eq!(counts(30).counters(true).counters.len(), 3);
    }

    #[test]
    fn table_and_json_of_rates() {
        let rates = counts(1030).since(&counts(30)).rates(2.0, |count, _| count.packets > 0);
        assert_eq!(
            rates.text(),
            " HOOK   VERDICT  REASON     PACKETS/S        RATE
 encap  forward  forwarded        500  4.0 Mbit/s
"
        );
        assert_eq!(
            serde_json::to_value(&rates).unwrap(),
            json!({"seconds": 2.0, "rates": [{
                "hook": "encap", "verdict": "forward", "reason": "forwarded",
                "packets_per_second": 500, "bytes_per_second": 500_000,
            }]})
        );
        let still = counts(30).since(&counts(30)).rates(1.0, |count, _| count.packets > 0);
        assert!(still.text().contains("nothing was counted"));
    }

    #[test]
    fn totals_and_rates_are_sorted_by_the_same_names() {
        assert!(Counter::names().eq(Rate::names()));
    }

    #[test]
    fn a_datapath_made_anew_has_begun_at_zero() {
        let since = counts(10).since(&counts(30));
        assert_eq!(since.0[0].2.packets, 10);
    }
}
