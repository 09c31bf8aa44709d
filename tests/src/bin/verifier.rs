//! Loads every kernel program of an object and shows what the kernel's verifier made of it: with all capabilities, with
//! the two that flanneld goes on with, and with these where programs write lines for the log. `cargo xtask verifier`
//! runs it.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::{Program, ProgramInfo};
use caps::{CapSet, Capability, CapsHashSet};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use flannel_common::maps::Node;
use flannel_userspace::datapath::{LogChoice, Telling, loader};

/// How programs are loaded: with which capabilities, and whether they write lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Those of root: CAP_PERFMON among them spares a program the masking against speculation.
    All,
    /// CAP_BPF and CAP_NET_ADMIN: the least that flanneld runs with.
    Two,
    /// The same, with `--datapath-log=info`.
    TwoWithLines,
}

impl Display for Held {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::All => "all",
            Self::Two => "BPF, NET_ADMIN",
            Self::TwoWithLines => "BPF, NET_ADMIN; lines",
        })
    }
}

impl Held {
    fn telling(self) -> Telling {
        let log = if self == Self::TwoWithLines { LogChoice::Info } else { LogChoice::Off };
        Telling { log, ..Telling::default() }
    }

    /// Does `work` while this thread has just these capabilities in effect.
    fn during<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let all = caps::read(None, CapSet::Effective).context("cannot read the capabilities")?;
        if self != Self::All {
            let two: CapsHashSet = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN].into();
            if !all.is_superset(&two) {
                bail!("CAP_BPF and CAP_NET_ADMIN are needed: run as root");
            }
            caps::set(None, CapSet::Effective, &two).context("cannot drop capabilities")?;
        }
        let outcome = work();
        caps::set(None, CapSet::Effective, &all).context("cannot take capabilities back")?;
        outcome
    }
}

fn main() -> Result<ExitCode> {
    let Some(path) = env::args_os().nth(1) else { bail!("name the object file to load") };
    let object = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows = Vec::new();
    let mut refused = 0;
    for held in [Held::All, Held::Two, Held::TwoWithLines] {
        // Maps belong to the programs: each round has its own.
        let open = || loader(&Node::UNSET, &held.telling()).load(&object);
        let mut ebpf = held.during(|| open().context("the object does not load"))?;
        for name in names(&ebpf) {
            match held.during(|| load(&mut ebpf, &name)) {
                Ok(info) => rows.push(row(&name, held, &info)),
                Err(error) => {
                    refused += 1;
                    eprintln!("{name} is refused with capabilities {held}: {error:#}");
                }
            }
        }
    }
    rows.sort_by(|one, other| one[0].cmp(&other[0]));
    println!("{}", table(rows).trim_fmt());
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names(ebpf: &Ebpf) -> Vec<String> {
    ebpf.programs().map(|(name, _)| name.to_owned()).collect()
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramInfo> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => {
            program.load()?;
            Ok(program.info()?)
        }
        Some(Program::SchedClassifier(program)) => {
            program.load()?;
            Ok(program.info()?)
        }
        _ => bail!("it is neither an XDP nor a traffic control program"),
    }
}

fn row(name: &str, held: Held, info: &ProgramInfo) -> [String; 5] {
    // Older kernels do not count, and a kernel without a compiler has no machine code.
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    [
        name.to_owned(),
        held.to_string(),
        number(info.verified_instruction_count()),
        number(info.size_translated()),
        number(Some(info.size_jitted()).filter(|size| *size > 0)),
    ]
}

fn table(rows: Vec<[String; 5]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "PROGRAM",
        "CAPABILITIES",
        "VERIFIED INSTRUCTIONS",
        "TRANSLATED BYTES",
        "MACHINE CODE BYTES",
    ]);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
