//! `kernels`: the project under the kernels that people run, and the table of what each of them takes.

mod part;
mod report;
mod verdict;

use std::fs;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use self::part::Part;
use self::verdict::Verdict;
use crate::summary::Summary;
use crate::toolchain::Flag;
use crate::vm::{self, Choice, Guest, Kernel, OBJECT, Outcome, Program, Settings, Stream, Wanted};
use crate::{build_ebpf, setup, workspace};

/// Where the table is kept.
const TABLE: &str = "docs/kernels.md";

/// Runs what tests kernels in guests with packaged kernels, and shows what each of them takes
///
/// First does what `vm` does. In a guest for each kernel, its verifier is shown every program, with each set of
/// capabilities, with and without lines for the log. Then the suite `packet` and tests of `network` and `interop` run
/// there: frames through every program, every backend and hook, whole files, exact sizes, the guard, daemons that are
/// killed, a device that is deleted, an underlay with another address, the kernel's own vxlan device as peer. Ends with
/// a table, and the number of tests: "N passed, N failed".
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
    /// How many guests run at a time
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    at_once: NonZeroUsize,
    /// Writes the table to docs/kernels.md
    #[arg(long)]
    write: bool,
}

/// One kernel, and all results there.
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
    for words in [["kernels", "--kernel=6.1", "--part=gate"], ["kernels", "--kernel=6.12", "--part=verifier"]]
    {
        all(&Line::try_parse_from(words)?.args, summary)?;
    }
    Ok(())
}

fn all(args: &Args, summary: &mut Summary) -> Result<Vec<Run>> {
    let wanted = args.choice.wanted()?;
    vm::prepare()?;
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let programs = vm::build(false, &args.part.suites())?;
    let mut runs = Vec::new();
    for wanted in wanted.chunks(args.at_once.get()) {
        for run in args.at_once(wanted, &programs)? {
            summary.add(&run.tests);
            summary.time_suite(&format!("guest with Linux {}", run.release), run.boot + run.work);
            runs.push(run);
        }
    }
    Ok(runs)
}

impl Args {
    /// Runs all of these side by side.
    fn at_once(&self, wanted: &[Wanted], programs: &[Program]) -> Result<Vec<Run>> {
        // One after the other: they share the cache.
        let kernels = wanted.iter().map(|wanted| self.choice.prepare(wanted)).collect::<Result<Vec<_>>>()?;
        thread::scope(|scope| {
            let guests: Vec<_> =
                kernels.iter().map(|kernel| scope.spawn(|| self.one(kernel, programs))).collect();
            let join =
                |guest: ScopedJoinHandle<'_, _>| guest.join().unwrap_or_else(|panic| resume_unwind(panic));
            guests.into_iter().map(join).collect()
        })
    }

    fn one(&self, kernel: &Kernel, programs: &[Program]) -> Result<Run> {
        println!("\n== Linux {}", kernel.release);
        let files = [(workspace::object(), PathBuf::from(OBJECT))];
        let command = ["sh".to_owned(), "-c".to_owned(), self.part.script(&kernel.release)];
        let mut guest = self.settings.guest(kernel, programs, &files);
        if self.settings.time_limit.is_none() {
            guest.time_limit = self.part.time_limit();
        }
        let prefix = if self.at_once.get() > 1 { format!("{}: ", kernel.name) } else { String::new() };
        let (mut said, mut outcome) = Said::of(&guest, &command, &prefix);
        // An emulated kernel can fail to boot by the emulation's fault alone (do_sync_core of 6.12). One that has said
        // something has not.
        if let Err(error) = &outcome
            && said.is_silent()
        {
            println!("{prefix}booting once more: {error:#}");
            (said, outcome) = Said::of(&guest, &command, &prefix);
        }
        let outcome = outcome.with_context(|| format!("Linux {}", kernel.release))?;
        let Outcome { boot, command: work, .. } = outcome;
        println!("{prefix}booted in {boot:.1?}, ran for {work:.1?}");
        let Said { mut tests, verdict, .. } = said;
        let verdict = verdict.with_context(|| {
            format!("the verifier of Linux {} was shown no program: {}", kernel.release, outcome.kernel_log)
        })?;
        let refused = verdict.broken_promises();
        tests.count(&format!("verifier on Linux {}", kernel.release), refused.is_empty());
        for refused in refused {
            println!("{prefix}{refused}");
        }
        if outcome.code != 0 && tests.failed == 0 {
            tests.count(&format!("command on Linux {}, exit code {}", kernel.release, outcome.code), false);
        }
        Ok(Run { name: kernel.name.clone(), release: kernel.release.clone(), verdict, tests, boot, work })
    }
}

/// What a guest has said so far.
#[derive(Default)]
struct Said<'a> {
    /// Stands before each line of it that is shown.
    prefix: &'a str,
    line: Vec<u8>,
    tests: Summary,
    verdict: Option<Verdict>,
}

impl<'a> Said<'a> {
    /// What `guest` says while it runs `command`.
    fn of(guest: &Guest<'_>, command: &[String], prefix: &'a str) -> (Self, Result<Outcome>) {
        let mut said = Self { prefix, ..Self::default() };
        let outcome = guest.run(command, |stream, bytes| said.take(stream, bytes));
        (said, outcome)
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
            println!("{}{line}", self.prefix);
        }
    }
}
