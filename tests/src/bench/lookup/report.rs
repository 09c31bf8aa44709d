//! The table, and the head of the file.

use comfy_table::{CellAlignment, Table, presets};

use super::{Figures, SIZES};

pub(super) const COMMENT: &str = "\
# Written by `cargo xtask bench lookup --write`: what each program takes for one packet, with its timer (some 40 ns), how
# many instructions the verifier followed, and how many bytes of stack it found. The suite `bench` fails when one of the
# latter two grows by more than a quarter.

";

pub(super) fn table(all: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let columns = SIZES.iter().flat_map(|peers| [format!("{peers} PEERS"), "COLD".to_owned()]);
    let head = ["PROGRAM", "INSTRUCTIONS", "STACK", "PASSED ON"].map(str::to_owned);
    table.set_header(head.into_iter().chain(columns));
    for figures in all {
        let time = |nanoseconds: u64| format!("{nanoseconds} ns");
        let times = figures.lookups.iter().flat_map(|lookup| [time(lookup.warm_ns), time(lookup.cold_ns)]);
        let head = [
            figures.program.clone(),
            figures.verified_instructions.to_string(),
            format!("{} B", figures.stack_bytes),
            time(figures.passed_on_ns),
        ];
        table.add_row(head.into_iter().chain(times));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
