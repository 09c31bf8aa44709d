//! The table and the JSON.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::{Figures, Start};

/// One line of the table.
struct Line {
    name: &'static str,
    show: fn(f64) -> String,
    value: fn(&Figures) -> f64,
    /// The most it should be, by the number of nodes.
    goal: fn(u32) -> Option<f64>,
}

const MEGABYTE: f64 = 1e6;

const LINES: [Line; 13] = [
    Line {
        name: "from nothing: ready",
        show: seconds,
        value: |of| ready(of.from_nothing),
        goal: from_nothing,
    },
    Line { name: "CPU time until then", show: seconds, value: |of| cpu(of.from_nothing), goal: none },
    Line { name: "received until then", show: megabytes, value: |of| received(of.from_nothing), goal: none },
    Line { name: "resident memory", show: megabytes, value: |of| resident(of.from_nothing), goal: memory },
    Line { name: "resident memory, peak", show: megabytes, value: |of| peak(of.from_nothing), goal: memory },
    Line {
        name: "after a restart: ready",
        show: seconds,
        value: |of| ready(of.restart),
        goal: after_restart,
    },
    Line { name: "CPU time until then", show: seconds, value: |of| cpu(of.restart), goal: none },
    Line { name: "received until then", show: megabytes, value: |of| received(of.restart), goal: none },
    Line { name: "resident memory", show: megabytes, value: |of| resident(of.restart), goal: memory },
    Line { name: "resident memory, peak", show: megabytes, value: |of| peak(of.restart), goal: memory },
    Line { name: "signs of life a second", show: number, value: |of| of.heartbeats.rate, goal: none },
    Line {
        name: "received a second",
        show: kilobytes,
        value: |of| of.heartbeats.received,
        goal: beats_bytes,
    },
    Line { name: "CPU meanwhile", show: percent, value: |of| of.heartbeats.cpu, goal: beats_cpu },
];

pub(super) fn table(all: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let sizes = all.iter().map(|figures| format!("{} NODES", figures.nodes));
    table.set_header(std::iter::once("MEASURE".to_owned()).chain(sizes));
    for line in &LINES {
        let cells = all.iter().map(|figures| cell(line, figures));
        table.add_row(std::iter::once(line.name.to_owned()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn cell(line: &Line, figures: &Figures) -> String {
    let value = (line.value)(figures);
    let is_missed = (line.goal)(figures.nodes).is_some_and(|goal| value >= goal);
    (line.show)(value) + if is_missed { " MISSED" } else { "" }
}

pub(super) fn json(all: &[Figures]) -> Result<String> {
    let start = |start: Start| {
        json!({
            "ready": ready(start), "cpu": cpu(start), "received": start.received,
            "resident": start.resident, "peak": start.peak,
        })
    };
    let figures = |of: &Figures| {
        let mut figures = Map::new();
        figures.insert("nodes".to_owned(), json!(of.nodes));
        figures.insert("from nothing".to_owned(), start(of.from_nothing));
        figures.insert("after a restart".to_owned(), start(of.restart));
        let beats = of.heartbeats;
        let beats = json!({ "rate": beats.rate, "received a second": beats.received, "cpu": beats.cpu });
        figures.insert("signs of life".to_owned(), beats);
        Value::Object(figures)
    };
    let sizes: Vec<Value> = all.iter().map(figures).collect();
    let units = "times in seconds, CPU as share of one, sizes in bytes";
    Ok(serde_json::to_string_pretty(&json!({ "units": units, "sizes": sizes }))? + "\n")
}

const fn ready(start: Start) -> f64 {
    start.ready.as_secs_f64()
}

const fn cpu(start: Start) -> f64 {
    start.cpu.as_secs_f64()
}

const fn received(start: Start) -> f64 {
    start.received as f64
}

const fn resident(start: Start) -> f64 {
    start.resident as f64
}

const fn peak(start: Start) -> f64 {
    start.peak as f64
}

const fn none(_: u32) -> Option<f64> {
    None
}

/// Half of what stock flannel was measured to take.
const fn from_nothing(nodes: u32) -> Option<f64> {
    match nodes {
        5_000 => Some(2.4),
        _ => None,
    }
}

const fn after_restart(nodes: u32) -> Option<f64> {
    match nodes {
        1_000 => Some(0.75),
        5_000 => Some(1.3),
        _ => None,
    }
}

const fn memory(nodes: u32) -> Option<f64> {
    Some(if nodes <= 5_000 { 60.0 * MEGABYTE } else { 100.0 * MEGABYTE })
}

/// A quarter of what stock flannel takes of each.
fn beats_bytes(nodes: u32) -> Option<f64> {
    Some(f64::from(nodes) / 5_000.0 * 0.43 * MEGABYTE / 4.0)
}

fn beats_cpu(nodes: u32) -> Option<f64> {
    Some(f64::from(nodes) / 5_000.0 * 0.048 / 4.0)
}

fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

fn number(value: f64) -> String {
    format!("{value:.1}")
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
