//! The tables of what kernels take, in Markdown.

use std::collections::BTreeSet;

use super::Run;
use super::verdict::{Capabilities, Row};

/// Both tables.
pub fn table(runs: &[Run]) -> String {
    format!("{}\n{}", of_features(runs), of_instructions(runs))
}

/// The page of the documentation that holds them.
pub fn page(tables: &str) -> String {
    format!(
        "# Kernels\n\n\
         What does each kernel support? `cargo xtask kernels --write` ran this in [guests](guests.md) with packaged \
         kernels, and made this page. `flannelctl features` answers for the kernel it runs on.\n\n\
         \"Programs\" are accepted with `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`; the next column says whether \
         also without the last one. What a kernel lacks has a fallback: filters under clsact instead of TCX, XDP \
         programs for packets of one buffer, no [bypass](operations.md#the-bypass), a slower clock.\n\n{tables}"
    )
}

fn of_features(runs: &[Run]) -> String {
    let mut table = String::from(
        "| Linux | programs | without `CAP_PERFMON` | TCX | XDP, several buffers | bypass | coarse clock | tests |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for Run { name, release, verdict, tests, boot, work } in runs {
        let support = &verdict.support;
        let cells = [
            verdict.takes_all(Capabilities::All) && verdict.takes_all(Capabilities::WithPerfmon),
            verdict.takes_all(Capabilities::Two),
            verdict.tcx,
            support.several_buffers,
            support.check_mtu,
            support.coarse_clock,
        ]
        .map(|is_so| if is_so { "yes" } else { "no" });
        let (boot, work) = (boot.as_secs(), work.as_secs());
        table.push_str(&format!(
            "| {release} ({name}) | {} | {} passed, {} failed, in {boot} + {work} s |\n",
            cells.join(" | "),
            tests.passed,
            tests.failed
        ));
    }
    table
}

/// Instructions that each verifier goes through, of the million it would: those of the backend with more, without lines
/// for the log.
fn of_instructions(runs: &[Run]) -> String {
    let programs: BTreeSet<&str> =
        runs.iter().flat_map(|run| &run.verdict.programs).map(|row| &*row.program).collect();
    let releases: Vec<&str> = runs.iter().map(|run| &*run.release).collect();
    let mut table = format!(
        "Instructions the verifier processes, of at most a million: with `CAP_PERFMON`, and without. A kernel before 5.16 \
         does not count.\n\n| Program | {} |\n|---|{}\n",
        releases.join(" | "),
        "---|".repeat(releases.len())
    );
    for program in programs {
        let cells = runs.iter().map(|run| {
            let of = |capabilities| {
                most(run.verdict.programs.iter().filter(|row| row.program == program), capabilities)
            };
            format!("{}, {}", of(Capabilities::WithPerfmon), of(Capabilities::Two))
        });
        table.push_str(&format!("| `{program}` | {} |\n", cells.collect::<Vec<_>>().join(" | ")));
    }
    table
}

fn most<'a>(rows: impl Iterator<Item = &'a Row>, capabilities: Capabilities) -> String {
    let rows: Vec<&Row> = rows.filter(|row| row.capabilities == capabilities && !row.lines).collect();
    if rows.is_empty() {
        return "-".to_owned();
    }
    if rows.iter().any(|row| row.refusal.is_some()) {
        return "refused".to_owned();
    }
    let most = rows.iter().filter_map(|row| row.verified_instructions).max();
    most.map_or_else(|| "taken".to_owned(), |most| most.to_string())
}
