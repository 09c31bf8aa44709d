//! The table, for a terminal and as Markdown.

use comfy_table::{CellAlignment, Table, TableStyle, presets};

use super::bound::{Bound, LINK};
use super::{Machine, Options, Path, Summary};

/// What was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    /// Of Docker.
    pub(super) version: String,
    pub(super) options: Options,
    pub(super) machine: Machine,
}

/// A path.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) path: Path,
    pub(super) bound: Bound,
    /// In bits per second.
    pub(super) rate: Summary,
}

impl Report {
    /// For a terminal.
    pub(super) fn terminal(&self) -> String {
        format!("{}\n{}", self.table(presets::NOTHING), self.circumstances())
    }

    /// The file.
    pub(super) fn markdown(&self) -> String {
        format!(
            "# Docker on two hosts, 100 Mbit/s\n\n\
             Written by `cargo xtask bench paper --write`. The experiment by which flannel's backends were compared in \
             2017, with this flannel: two hosts, a link of {:.0} Mbit/s, a container of Docker on each, iperf3 over one \
             TCP connection. `direct` is between containers with the network of their hosts. In Mbit/s of payload; \
             measured is the median of the rounds, with the half of them around it.\n\n\
             {}\n\
             The bound is computed: payload per Ethernet frame, by what a frame takes of the wire (preamble, header, \
             checksum and gap are 38 bytes). IPv4, TCP and its timestamps take 52 bytes of a packet of 1500, the tunnel \
             28 (udp: IPv4, UDP) or 50 (vxlan: IPv4, UDP, VXLAN, Ethernet). On such a link no flannel can be faster than \
             that, and the order of the backends is that of their headers. What a packet costs is seen on \
             [faster links](README.md).\n\n{}\n",
            LINK / 1e6,
            self.table(presets::ASCII_MARKDOWN),
            self.circumstances(),
        )
    }

    fn table(&self, style: TableStyle) -> String {
        let mut table = Table::new();
        let header =
            ["path", "2017", "measured", "half of them", "bound", "of the bound", "how it is bounded"];
        let rows = self.rows.iter().map(|Row { path, bound, rate }| {
            let mbit = |rate: f64| format!("{:.1}", rate / 1e6);
            [
                path.name.to_owned(),
                mbit(path.published),
                mbit(rate.median),
                format!("{} … {}", mbit(rate.low), mbit(rate.high)),
                mbit(bound.rate()),
                format!("{:.1} %", 100.0 * rate.median / bound.rate()),
                bound.shown(),
            ]
        });
        table.load_style(style).set_header(header).add_rows(rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt() + "\n"
    }

    fn circumstances(&self) -> String {
        let Self { version, options, machine, .. } = self;
        format!("Docker {version}; {machine}; {} rounds, {} s each.", options.rounds, options.time)
    }
}
