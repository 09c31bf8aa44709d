//! The table and the JSON.

use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::Figures;
use super::propagation::Percentiles;

/// One line of the table.
struct Line {
    name: &'static str,
    /// What is printed, and whether it meets the goal.
    show: fn(f64) -> String,
    value: fn(&Figures) -> Option<f64>,
    /// The most it should be, by the number of peers.
    goal: fn(u32) -> Option<f64>,
}

const MEGABYTE: f64 = 1e6;

const LINES: [Line; 12] = [
    Line { name: "subnet file written", show: seconds, value: |of| time(of.subnet_file), goal: none },
    Line { name: "ready", show: seconds, value: |of| time(of.ready), goal: ready },
    Line { name: "CPU time until ready", show: seconds, value: |of| time(of.at_ready.cpu), goal: none },
    Line {
        name: "resident memory",
        show: megabytes,
        value: |of| Some(of.at_end.resident as f64),
        goal: memory,
    },
    Line {
        name: "resident memory, peak",
        show: megabytes,
        value: |of| Some(of.at_end.peak as f64),
        goal: memory,
    },
    Line { name: "CPU while idle", show: percent, value: |of| of.idle, goal: |_| Some(0.002) },
    Line { name: "put to entry, p50", show: milliseconds, value: |of| of.put.map(p50), goal: none },
    Line { name: "put to entry, p99", show: milliseconds, value: |of| of.put.map(p99), goal: latency },
    Line {
        name: "under changes, p50",
        show: milliseconds,
        value: |of| of.churn.map(|of| p50(of.put)),
        goal: none,
    },
    Line {
        name: "under changes, p99",
        show: milliseconds,
        value: |of| of.churn.map(|of| p99(of.put)),
        goal: latency,
    },
    Line { name: "CPU under changes", show: percent, value: |of| of.churn.map(|of| of.cpu), goal: none },
    Line { name: "log", show: kilobytes, value: |of| Some(of.log as f64), goal: |_| Some(MEGABYTE) },
];

pub(super) fn table(all: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let sizes = all.iter().map(|figures| format!("{} LEASES", figures.peers));
    table.set_header(std::iter::once("MEASURE".to_owned()).chain(sizes).chain(["GOAL".to_owned()]));
    for line in &LINES {
        let cells = all.iter().map(|figures| cell(line, figures));
        table.add_row(std::iter::once(line.name.to_owned()).chain(cells).chain([goals(line, all)]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rates: Vec<f64> = all.iter().filter_map(|figures| figures.churn.map(|churn| churn.rate)).collect();
    let rates = rates.iter().map(|rate| format!("\n\nUnder changes: {rate:.0} leases changed a second."));
    format!("{}{}", table.trim_fmt(), rates.collect::<String>())
}

fn cell(line: &Line, figures: &Figures) -> String {
    let Some(value) = (line.value)(figures) else { return "-".to_owned() };
    let is_missed = (line.goal)(figures.peers).is_some_and(|goal| value >= goal);
    (line.show)(value) + if is_missed { " MISSED" } else { "" }
}

/// Goals that differ by size stand in the order of the sizes.
fn goals(line: &Line, all: &[Figures]) -> String {
    let measured = all.iter().filter(|figures| (line.value)(figures).is_some());
    let mut goals: Vec<String> = measured
        .filter_map(|figures| (line.goal)(figures.peers))
        .map(|goal| format!("< {}", (line.show)(goal)))
        .collect();
    goals.dedup();
    goals.join(", ")
}

pub(super) fn json(all: &[Figures]) -> Result<String> {
    let figures = |figures: &Figures| -> Value {
        let of = |line: &Line| ((line.name).to_owned(), json!((line.value)(figures)));
        json!({ "leases": figures.peers, "figures": LINES.iter().map(of).collect::<serde_json::Map<_, _>>() })
    };
    let sizes: Vec<Value> = all.iter().map(figures).collect();
    let units = "times in seconds, CPU as share of one, sizes in bytes";
    Ok(serde_json::to_string_pretty(&json!({ "units": units, "sizes": sizes }))? + "\n")
}

const fn none(_: u32) -> Option<f64> {
    None
}

const fn ready(peers: u32) -> Option<f64> {
    match peers {
        0..=10_000 => Some(1.0),
        _ => Some(3.0),
    }
}

const fn memory(_: u32) -> Option<f64> {
    Some(60.0 * MEGABYTE)
}

const fn latency(_: u32) -> Option<f64> {
    Some(0.1)
}

const fn time(time: Duration) -> Option<f64> {
    Some(time.as_secs_f64())
}

const fn p50(of: Percentiles) -> f64 {
    of.p50.as_secs_f64()
}

const fn p99(of: Percentiles) -> f64 {
    of.p99.as_secs_f64()
}

fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

fn milliseconds(value: f64) -> String {
    format!("{:.1} ms", value * 1e3)
}

fn megabytes(value: f64) -> String {
    format!("{:.1} MB", value / MEGABYTE)
}

fn kilobytes(value: f64) -> String {
    format!("{:.1} kB", value / 1e3)
}

fn percent(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}
