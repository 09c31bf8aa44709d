//! `bare-root`: whether `setup` keeps its promise on a fresh system of each distribution.

mod check;
mod disk;
mod root;
mod system;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use self::check::CHECKS;
use self::disk::Disk;
use self::root::Root;
use self::system::System;
use crate::install::{BARE_ROOTS, Installer};
use crate::privilege;

/// Tries setup in a bare Debian 12, Debian 13 and Ubuntu 24.04
///
/// Makes a root of each by mmdebstrap, with what the README asks for: rustup's stable toolchain, copied from this machine,
/// and a C linker; and with the files of HEAD. Runs `cargo xtask setup` there as root, with lists of packages that are
/// old, and after it was killed while it worked; runs what it installed, and builds the kernel programs and the daemon;
/// then takes the network, the disk and the distribution's LLVM away from it. A line says of each check whether it
/// passed. Needs root, the network, 8 GB of disk and about ten minutes for each; all it makes is on a disk that goes with
/// this process, however it ends.
#[derive(clap::Args)]
pub struct Args {
    /// Only this system; may be given more than once
    #[arg(long = "system", value_enum, value_name = "NAME")]
    systems: Vec<System>,
    /// Only checks whose names contain this, and those that set the system up
    #[arg(long = "check", value_name = "TEXT")]
    checks: Option<String>,
}

/// What became of one system.
struct Verdict {
    system: System,
    lines: Vec<String>,
    passed: usize,
    failed: usize,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if !privilege::is_root() {
        bail!("a system is made and entered by mount and chroot, which need root: run it as root");
    }
    Installer::of_this_machine()?.ensure(BARE_ROOTS)?;
    let systems = if args.systems.is_empty() { System::value_variants() } else { &args.systems };
    let verdicts: Vec<Verdict> = systems.iter().map(|system| args.verdict(*system)).collect();
    println!();
    for verdict in &verdicts {
        println!("{}:", verdict.system);
        for line in &verdict.lines {
            println!("  {line}");
        }
    }
    let count = |number: fn(&Verdict) -> usize| verdicts.iter().map(number).sum::<usize>();
    let (passed, failed) = (count(|verdict| verdict.passed), count(|verdict| verdict.failed));
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn verdict(&self, system: System) -> Verdict {
        eprintln!("== {system}");
        let mut verdict = Verdict { system, lines: Vec::new(), passed: 0, failed: 0 };
        let outcome = disk::with(|disk| self.try_system(disk, &mut verdict)).and_then(|outcome| outcome);
        if let Err(error) = outcome {
            eprintln!("error: {error:#}");
            verdict.failed += 1;
            verdict.lines.push(format!("FAIL {}", error.to_string().lines().next().unwrap_or_default()));
        }
        verdict
    }

    /// Checks one system, as far as what later checks build on passes.
    fn try_system(&self, disk: &Disk, verdict: &mut Verdict) -> Result<()> {
        let system = verdict.system;
        let root = Root::make(disk, system)
            .with_context(|| format!("no bare {system} could be made from {}", system.archive()))?;
        let checks = CHECKS.iter().filter(|check| {
            check.is_for(system)
                && self.checks.as_ref().is_none_or(|text| check.is_needed() || check.name.contains(text))
        });
        for check in checks {
            let time = check.run(&root).with_context(|| check.name)?;
            let got = root.downloads()?;
            verdict.passed += 1;
            verdict.lines.push(format!("PASS {:<61} {:>6.1} s  {got}", check.name, time.as_secs_f32()));
        }
        Ok(())
    }
}
