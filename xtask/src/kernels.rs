//! `kernels`: the project under the kernels that people run, and the table of what each of them takes.

mod part;
mod report;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result};
use clap::Parser;

use self::part::Part;
use self::verdict::Verdict;
use crate::test::summary::Summary;
use crate::toolchain::Flag;
use crate::vm::{self, Choice, Guest, OBJECT, Outcome, Program, Settings, Stream, Wanted};
use crate::{build_ebpf, setup, workspace};

/// Where the table is kept.
const TABLE: &str = "docs/kernels.md";

/// Runs what tests kernels in guests with packaged kernels, and shows what each of them takes
///
/// First does what `vm` does. In a guest for each kernel, its verifier is shown every program, with each set of
/// capabilities, with and without lines for the log. Then tests of the suites `network` and `interop` run there: every
/// backend and hook, whole files, exact sizes, the guard, daemons that are killed, a device that is deleted, an underlay
/// with another address, the kernel's own vxlan device as peer. Ends with a table, and the number of tests: "N passed, N
/// failed".
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    toolchain: Flag,
    /// What runs in each guest
    #[arg(long, value_enum, default_value_t = Part::Whole)]
    part: Part,
    /// Writes the table to docs/kernels.md
    #[arg(long)]
    write: bool,
}

/// One kernel, and what became of everything there.
struct Run {
    name: String,
    release: String,
    verdict: Verdict,
    tests: Summary,
    /// From the guest's start to the first word.
    boot: Duration,
    /// From there to the end.
    work: Duration,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut summary = Summary::default();
    let runs = all(args, &mut summary)?;
    let table = report::table(&runs);
    println!("\n{table}");
    if args.write {
        let path = workspace::root().join(TABLE);
        fs::write(&path, report::page(&table)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{summary}");
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is run of this with all tests: the oldest kernel that takes programs without CAP_PERFMON, with some tests of the
/// network, and one that most people run.
pub fn gate(summary: &mut Summary) -> Result<()> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let started = Instant::now();
    for words in [["kernels", "--kernel=6.1", "--part=gate"], ["kernels", "--kernel=6.12", "--part=verifier"]]
    {
        all(&Line::try_parse_from(words)?.args, summary)?;
    }
    println!("{:.0} s in guests with other kernels", started.elapsed().as_secs_f32());
    Ok(())
}

fn all(args: &Args, summary: &mut Summary) -> Result<Vec<Run>> {
    let wanted = args.choice.wanted()?;
    vm::prepare()?;
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let programs = vm::build(false, &args.part.suites())?;
    let mut runs = Vec::new();
    for wanted in wanted {
        let run = args.one(&wanted, &programs)?;
        summary.add(&run.tests);
        runs.push(run);
    }
    Ok(runs)
}

impl Args {
    fn one(&self, wanted: &Wanted, programs: &[Program]) -> Result<Run> {
        let kernel = self.choice.prepare(wanted)?;
        println!("\n== Linux {}", kernel.release);
        let files = [(workspace::object(), PathBuf::from(OBJECT))];
        let command = ["sh".to_owned(), "-c".to_owned(), self.part.script()];
        let guest = self.settings.guest(&kernel, programs, &files);
        let (said, outcome) = Said::of(&guest, &command)
            .or_else(|(said, error)| {
                // An emulated kernel can fail to boot by the emulation's fault alone (do_sync_core of 6.12). One that has
                // said something has not.
                if !said.is_silent() {
                    return Err(error);
                }
                println!("booting once more: {error:#}");
                Said::of(&guest, &command).map_err(|(_, error)| error)
            })
            .with_context(|| format!("Linux {}", kernel.release))?;
        let Outcome { boot, command: work, .. } = outcome;
        println!("booted in {boot:.1?}, ran for {work:.1?}");
        let Said { mut tests, verdict, .. } = said;
        let verdict = verdict.with_context(|| {
            format!("the verifier of Linux {} was shown no program: {}", kernel.release, outcome.kernel_log)
        })?;
        let refused = verdict.broken_promises();
        tests.count(&format!("verifier on Linux {}", kernel.release), refused.is_empty());
        for refused in refused {
            println!("{refused}");
        }
        if outcome.code != 0 && tests.failed == 0 {
            tests.count(&format!("command on Linux {}, exit code {}", kernel.release, outcome.code), false);
        }
        Ok(Run { name: wanted.name(), release: kernel.release.clone(), verdict, tests, boot, work })
    }
}

/// What a guest has said so far.
#[derive(Default)]
struct Said {
    line: Vec<u8>,
    tests: Summary,
    verdict: Option<Verdict>,
}

impl Said {
    /// What `guest` says while it runs `command`.
    fn of(guest: &Guest<'_>, command: &[String]) -> Result<(Self, Outcome), (Self, Error)> {
        let mut said = Self::default();
        match guest.run(command, |stream, bytes| said.take(stream, bytes)) {
            Ok(outcome) => Ok((said, outcome)),
            Err(error) => Err((said, error)),
        }
    }

    const fn is_silent(&self) -> bool {
        self.verdict.is_none() && self.line.is_empty() && self.tests.passed + self.tests.failed == 0
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => bytes.iter().for_each(|byte| self.take_byte(*byte)),
            Stream::Stderr => eprint!("{}", String::from_utf8_lossy(bytes)),
            Stream::Console | Stream::Status => {}
        }
    }

    fn take_byte(&mut self, byte: u8) {
        if byte != b'\n' {
            self.line.push(byte);
            return;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
        if let Some(verdict) = Verdict::parse(&line) {
            self.verdict = Some(verdict);
        } else {
            self.tests.read(&line);
            println!("{line}");
        }
    }
}
