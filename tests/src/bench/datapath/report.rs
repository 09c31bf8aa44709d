//! The tables, for a terminal and for Markdown.

use comfy_table::{CellAlignment, Table, presets};

use super::Results;
use super::goals::{Bound, GOALS, Goal};
use super::link::Link;
use super::measure::Measure;
use super::path::{DIRECT, KERNEL_VXLAN, ROUTES, TUN_PROXY};
use super::samples::Summary;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Terminal,
    Markdown,
}

/// The paths others are compared with.
pub(super) const REFERENCES: [&str; 4] = [DIRECT, ROUTES, KERNEL_VXLAN, TUN_PROXY];

impl Style {
    pub(super) fn heading(self, level: usize, text: &str) -> String {
        match self {
            Self::Terminal => format!("{}\n", text.to_uppercase()),
            Self::Markdown => format!("{} {text}\n", "#".repeat(level)),
        }
    }

    fn table<const N: usize>(self, header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
        let mut table = Table::new();
        let preset = if self == Self::Terminal { presets::NOTHING } else { presets::ASCII_MARKDOWN };
        table.load_style(preset).set_header(header).add_rows(rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt() + "\n"
    }
}

/// A table for each figure of a link.
pub(super) fn figures(results: &Results, link: Link, style: Style) -> String {
    let measured =
        Measure::ALL.iter().filter(|measure| !results.samples.values(link, DIRECT, **measure).is_empty());
    let tables = measured.map(|measure| {
        let rows = results.paths.iter().filter_map(|path| row(results, link, path.name, *measure));
        let header =
            ["path", "median", "half of them", "× direct", "× host-gw", "× kernel vxlan", "× TUN proxy"];
        format!("{}\n{}", style.heading(3, measure.title()), style.table(header, rows))
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn row(results: &Results, link: Link, path: &str, measure: Measure) -> Option<[String; 7]> {
    let Summary { median, low, high } = results.samples.summary(link, path, measure)?;
    let against = |reference: &str| {
        // A multiple of next to nothing says nothing.
        let is_share = measure == Measure::Loss;
        let ratio = results.samples.ratio(link, path, measure, reference).filter(|_| !is_share);
        ratio.map_or_else(|| "-".to_owned(), |ratio| factor(ratio.median))
    };
    let [direct, routes, kernel, proxy] = REFERENCES.map(against);
    let half = format!("{} … {}", measure.show(low), measure.show(high));
    Some([path.to_owned(), measure.show(median), half, direct, routes, kernel, proxy])
}

/// A ratio for people.
fn factor(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.2}") }
}

/// What should be reached beside what was.
pub(super) fn goals(results: &Results, style: Style) -> String {
    let rows = GOALS.iter().filter_map(|goal| {
        let reached = goal.reached(&results.samples)?;
        let verdict = match goal.bound.missed_by(reached) {
            None => "met".to_owned(),
            Some(share) => format!("missed by {:.1} %", share * 100.0),
        };
        Some([subject(goal), bound(goal), shown(goal, reached), verdict])
    });
    style.table(["goal", "should be", "is", ""], rows)
}

fn subject(goal: &Goal) -> String {
    format!("{}, {}, {}", goal.path, goal.measure.name(), goal.link.name())
}

fn bound(goal: &Goal) -> String {
    let sign = if matches!(goal.bound, Bound::AtLeast(_)) { "≥" } else { "≤" };
    let against = goal.against.map_or_else(String::new, |reference| format!(" × {reference}"));
    format!("{sign} {}{against}", shown(goal, goal.bound.value()))
}

fn shown(goal: &Goal, value: f64) -> String {
    if goal.against.is_some() { factor(value) } else { goal.measure.show(value) }
}
