//! Loads every kernel program of an object that is for this kernel, and shows what the kernel's verifier made of it: with
//! all capabilities, with those that flanneld loads programs with, and without the one that it can do without on newer
//! kernels; each with and without lines for the log. `cargo xtask verifier` runs it.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::util::KernelVersion;
use caps::{CapSet, Capability, CapsHashSet};
use clap::Parser;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use flannel_datapath::{Accepted, Answer, LogChoice, ProgramSettings, Support, check, tcx_programs};
use serde::Serialize;

/// Shows whether the kernel's verifier accepts every program
#[derive(Parser)]
struct Args {
    /// The object file with the programs
    object: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// From this kernel on its verifier compares addresses of a packet for programs without CAP_PERFMON, too.
const WITHOUT_PERFMON: KernelVersion = KernelVersion::new(6, 5, 0);

/// The capabilities that programs are loaded with.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
enum Capabilities {
    /// Those of root.
    All,
    /// What flanneld loads programs with.
    WithPerfmon,
    /// CAP_BPF and CAP_NET_ADMIN: the least that flanneld runs with on newer kernels.
    Two,
}

impl Display for Capabilities {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::All => "all",
            Self::WithPerfmon => "BPF, NET_ADMIN, PERFMON",
            Self::Two => "BPF, NET_ADMIN",
        })
    }
}

impl Capabilities {
    /// Whether this kernel is to take programs with these.
    fn is_promised(self) -> Result<bool> {
        Ok(self != Self::Two || KernelVersion::current()? >= WITHOUT_PERFMON)
    }

    fn set(self) -> Option<CapsHashSet> {
        let two = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
        match self {
            Self::All => None,
            Self::WithPerfmon => Some(two.into_iter().chain([Capability::CAP_PERFMON]).collect()),
            Self::Two => Some(two.into()),
        }
    }

    /// Does `work` in a thread with just these capabilities.
    fn during<T: Send>(self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let confined = || {
            self.confine()?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(confined).join())
            .map_err(|_| anyhow!("the verifier's thread ended"))?
    }

    fn confine(self) -> Result<()> {
        let Some(set) = self.set() else { return Ok(()) };
        let all = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
        if !all.is_superset(&set) {
            bail!("the capabilities {self} are needed: run as root");
        }
        for kind in [CapSet::Effective, CapSet::Permitted] {
            caps::set(None, kind, &set).context("cannot drop capabilities")?;
        }
        Ok(())
    }
}

/// The result for one program.
#[derive(Serialize)]
struct Row {
    program: &'static str,
    /// The backend it was loaded for.
    backend: &'static str,
    capabilities: Capabilities,
    /// Whether it writes lines for the log.
    lines: bool,
    /// What the kernel said of a program that it refused.
    refusal: Option<String>,
    /// Whether this kernel is to take the program.
    is_promised: bool,
    /// Nothing where the kernel does not count (before 5.16).
    verified_instructions: Option<u32>,
    translated_bytes: Option<u32>,
    /// Nothing without a compiler in the kernel.
    machine_code_bytes: Option<u32>,
}

/// All of it, with what else the programs find on this kernel.
#[derive(Serialize)]
struct Verdict {
    /// Whether there is TCX.
    tcx: bool,
    support: Support,
    programs: Vec<Row>,
}

impl Verdict {
    fn of(programs: Vec<Row>) -> Self {
        let tcx = tcx_programs(LOOPBACK, "vxlan_decap").is_ok_and(|programs| programs.is_some());
        Self { tcx, support: Support::of_this_kernel(), programs }
    }
}

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let object = fs::read(&args.object).with_context(|| format!("cannot read {}", args.object.display()))?;
    let mut rows = Vec::new();
    for capabilities in [Capabilities::All, Capabilities::WithPerfmon, Capabilities::Two] {
        for log in [LogChoice::Off, LogChoice::Info] {
            rows.append(&mut load_all(&object, capabilities, log)?);
        }
    }
    rows.sort_by_key(|row| (row.backend, row.program));
    let is_kept = rows.iter().all(|row| row.refusal.is_none() || !row.is_promised);
    if args.json {
        println!("{}", serde_json::to_string(&Verdict::of(rows))?);
    } else {
        for row in &rows {
            if let Some(refusal) = &row.refusal {
                let Row { program, backend, capabilities, .. } = row;
                eprintln!("{program} ({backend}) is refused with capabilities {capabilities}: {refusal}");
            }
        }
        println!("{}", table(&rows).trim_fmt());
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads every program that is for this kernel.
fn load_all(object: &[u8], capabilities: Capabilities, log: LogChoice) -> Result<Vec<Row>> {
    let program_settings = ProgramSettings { log, ..ProgramSettings::default() };
    let answers = capabilities
        .during(|| check(object, program_settings))?
        .with_context(|| format!("the object does not load with capabilities {capabilities}"))?;
    let is_promised = capabilities.is_promised()?;
    let row = |Answer { program, backend, outcome }: Answer| {
        let (accepted, refusal) = match outcome {
            Ok(accepted) => (accepted, None),
            Err(refusal) => (Accepted::default(), Some(refusal.to_string())),
        };
        let Accepted { verified_instructions, translated_bytes, machine_code_bytes } = accepted;
        let (capabilities, lines) = (capabilities, log != LogChoice::Off);
        Row {
            program,
            backend,
            capabilities,
            lines,
            refusal,
            is_promised,
            verified_instructions,
            translated_bytes,
            machine_code_bytes,
        }
    };
    Ok(answers.into_iter().map(row).collect())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "BACKEND",
        "PROGRAM",
        "CAPABILITIES",
        "LINES",
        "VERIFIED INSTRUCTIONS",
        "TRANSLATED BYTES",
        "MACHINE CODE BYTES",
    ]);
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    table.add_rows(rows.iter().map(|row| {
        let verified = match &row.refusal {
            Some(_) => "refused".to_owned(),
            None => number(row.verified_instructions),
        };
        [
            row.backend.to_owned(),
            row.program.to_owned(),
            row.capabilities.to_string(),
            if row.lines { "yes" } else { "no" }.to_owned(),
            verified,
            number(row.translated_bytes),
            number(row.machine_code_bytes),
        ]
    }));
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
