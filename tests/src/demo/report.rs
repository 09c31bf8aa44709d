//! The demonstration's tables.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::measure::{Comparison, Measurement};
use crate::cluster::Cluster;

/// Columns of the table of measurements that hold numbers.
const NUMBERS: std::ops::Range<usize> = 1..9;

pub(super) fn title(text: &str) -> String {
    let line = "─".repeat(80_usize.saturating_sub(text.chars().count() + 4));
    format!("── {text} {line}")
}

/// Who leases what.
pub(super) fn leases(cluster: &Cluster) -> String {
    let mut table = plain(["HOST", "ADDRESS", "SUBNET", "MTU", "PODS"]);
    for member in &cluster.members {
        let node = &member.node;
        let pods: Vec<String> = node.endpoints().map(|pod| pod.address.to_string()).collect();
        table.add_row([
            node.host.name.clone(),
            node.host.address.to_string(),
            node.file.subnet.to_string(),
            node.file.mtu.to_string(),
            pods.join(" "),
        ]);
    }
    table.trim_fmt()
}

/// Each backend beside the link it was measured with.
pub(super) fn table(comparisons: &[(&str, Comparison)]) -> String {
    let mut table = plain(["PATH", "1 STREAM", "", "4 STREAMS", "", "RTT P50", "", "RTT P99", ""]);
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (backend, Comparison { direct, overlay }) in comparisons {
        table.add_row(row("host to host", direct, direct));
        table.add_row(row(backend, overlay, direct));
    }
    format!(
        "{}\n\nThe ratios are to the line above, measured on the same hosts right before.",
        table.trim_fmt()
    )
}

fn row(name: &str, path: &Measurement, direct: &Measurement) -> Vec<String> {
    let ratio = |of: f64, to: f64| format!("×{:.2}", of / to);
    let time_ratio = |of: Duration, to: Duration| ratio(of.as_secs_f64(), to.as_secs_f64());
    vec![
        name.to_owned(),
        rate(path.one_stream),
        ratio(path.one_stream, direct.one_stream),
        rate(path.four_streams),
        ratio(path.four_streams, direct.four_streams),
        microseconds(path.latency.p50),
        time_ratio(path.latency.p50, direct.latency.p50),
        microseconds(path.latency.p99),
        time_ratio(path.latency.p99, direct.latency.p99),
    ]
}

/// Bits per second, for people.
pub(super) fn rate(bits_per_second: f64) -> String {
    format!("{:.2} Gbit/s", bits_per_second / 1e9)
}

fn microseconds(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

/// Columns without lines.
fn plain<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}
