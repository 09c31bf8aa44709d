//! `flannelctl counters`: packets by verdict and reason, in total or per second.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flannel_common::maps::Count;
use flannel_common::{Hook, Reason, Verdict};
use flannel_datapath::{DatapathError, Tables};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::output::{Page, Report, Tone, cell, toned};
use super::place::Context;
use super::units;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also reasons whose counters are zero.
    #[arg(long)]
    all: bool,
    /// Show packets and bits a second, repeatedly, with this pause.
    #[arg(
        long,
        num_args = 0..=1,
        default_missing_value = "1",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    watch: Option<u64>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let tables = context.place.tables()?;
        let mut before = (Instant::now(), Counts::read(&tables)?);
        let Some(pause) = self.watch else {
            context.printer.print(&before.1.counters(self.all))?;
            return Ok(ExitCode::SUCCESS);
        };
        loop {
            sleep(Duration::from_secs(pause)).await;
            let now = (Instant::now(), Counts::read(&tables)?);
            let seconds = (now.0 - before.0).as_secs_f64();
            context.printer.print_next(&now.1.rates(&before.1, seconds, self.all))?;
            before = now;
        }
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

    fn rates(&self, before: &Self, seconds: f64, all: bool) -> Rates {
        let since = self.since(before);
        let shown = since.0.iter().filter(|(_, _, count)| all || count.packets > 0);
        let per_second = |count: u64| (count as f64 / seconds.max(f64::EPSILON)).round() as u64;
        let rates = shown.map(|(hook, reason, count)| Rate {
            hook: hook.label(),
            verdict: reason.verdict().label(),
            reason: reason.label(),
            packets_per_second: per_second(count.packets),
            bytes_per_second: per_second(count.bytes),
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
struct Counter {
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

impl Report for Counters {
    fn show(&self, page: &mut Page) {
        let rows = self.counters.iter().map(|counter| {
            vec![
                cell(counter.hook),
                verdict(counter.verdict),
                cell(counter.reason),
                cell(counter.packets),
                cell(units::bytes(counter.bytes)),
                cell(counter.help),
            ]
        });
        page.table(&["HOOK", "VERDICT", "REASON", ">PACKETS", ">BYTES", ""], rows);
    }
}

/// The counters per second.
#[derive(Debug, Serialize)]
struct Rates {
    /// Over how long.
    seconds: f64,
    rates: Vec<Rate>,
}

#[derive(Debug, Serialize)]
struct Rate {
    hook: &'static str,
    verdict: &'static str,
    reason: &'static str,
    packets_per_second: u64,
    bytes_per_second: u64,
}

impl Report for Rates {
    fn show(&self, page: &mut Page) {
        let rows = self.rates.iter().map(|rate| {
            vec![
                cell(rate.hook),
                verdict(rate.verdict),
                cell(rate.reason),
                cell(rate.packets_per_second),
                cell(units::bits_per_second(rate.bytes_per_second)),
            ]
        });
        page.table(&["HOOK", "VERDICT", "REASON", ">PACKETS/S", ">RATE"], rows);
        if self.rates.is_empty() {
            page.line(" nothing was counted");
        }
        // One empty line separates the answers.
        page.line("");
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::maps::Count;
    use flannel_common::{Hook, Reason};
    use serde_json::json;

    use super::Counts;
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
        let rates = counts(1030).rates(&counts(30), 2.0, false);
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
        assert!(counts(30).rates(&counts(30), 1.0, false).text().contains("nothing was counted"));
    }

    #[test]
    fn a_datapath_made_anew_has_begun_at_zero() {
        let since = counts(10).since(&counts(30));
        assert_eq!(since.0[0].2.packets, 10);
    }
}
