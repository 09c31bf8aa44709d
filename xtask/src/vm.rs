//! `vm`: a command under other kernels than this machine's.

mod apt;
mod cache;
mod channels;
mod choice;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod packages;
mod programs;
mod qemu;

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

pub use self::apt::{Apt, Source};
pub use self::cache::Cache;
pub use self::channels::Stream;
pub use self::choice::{Choice, Wanted};
pub use self::guest::{Guest, Outcome};
pub use self::kernel::Kernel;
pub use self::packages::output;
pub use self::programs::{Program, build};
pub use self::qemu::{Device, Machine};
use crate::install::{GUESTS, Installer};
use crate::toolchain::Flag;
use crate::{build_ebpf, setup, workspace};

/// Where a guest has the kernel programs.
pub const OBJECT: &str = "/flannel/flannel-datapath.o";

/// How long a guest has where nothing else is said.
pub const TIME_LIMIT: Duration = Duration::from_mins(15);

/// Runs a command in guests with packaged kernels, played by qemu
///
/// First does what `setup` and `build-ebpf` do, installs what guests need, and builds the programs. Each guest has in
/// its memory these programs, on PATH, the kernel programs (/flannel/flannel-datapath.o), the tools of this machine
/// that they call, and modules that are loaded when needed. The command's output is passed on as it comes, and so is
/// its exit code; of several kernels, the first that is not 0. A guest that panics, hangs or does not come up is an
/// error, which shows the end of its console. Packages of kernels are checked and kept in ~/.cache/flannel-ebpf.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    toolchain: Flag,
    /// Builds the programs with optimisation
    #[arg(long)]
    release: bool,
    /// A suite of the tests crate that the guest has as a program of that name, for example packet
    #[arg(long = "with-suite", value_name = "NAME")]
    test_suites: Vec<String>,
    /// A further file for the guest, with its path there
    #[arg(long = "file", value_name = "FILE:PATH", value_parser = file)]
    files: Vec<(PathBuf, PathBuf)>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What all guests of a run have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    #[command(flatten)]
    pub machine: Machine,
    /// How many seconds a guest has from its start to the end of the command [default: 900, or what its tests need]
    #[arg(long, value_name = "SECONDS")]
    pub time_limit: Option<u64>,
    /// By how much tests stretch their time limits (FLANNEL_TEST_PATIENCE): an emulated machine is slow
    #[arg(long, value_name = "FACTOR", default_value_t = 10.0)]
    pub patience: f64,
    /// A module that the guest has beside the usual ones
    #[arg(long = "module", value_name = "NAME")]
    pub modules: Vec<String>,
    /// Shows the kernel's console, too
    #[arg(long)]
    pub console: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let wanted = args.choice.wanted()?;
    prepare()?;
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let programs = programs::build(args.release, &args.test_suites)?;
    let mut files = vec![(workspace::object(), OBJECT.into())];
    files.extend(args.files.iter().cloned());
    let runs: Vec<Run> = wanted.iter().map(|wanted| args.run(wanted, &programs, &files)).collect();
    if runs.len() > 1 {
        eprintln!();
        for run in &runs {
            eprintln!("{}", run.line());
        }
    }
    Ok(runs.iter().map(Run::code).find(|code| *code != 0).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Makes sure that guests can run on this machine.
pub fn prepare() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!(
            "guests run the programs of this machine and are x86_64; this machine is {}",
            env::consts::ARCH
        );
    }
    Installer::of_this_machine()?.ensure(GUESTS)
}

/// The result of one kernel.
struct Run {
    name: String,
    outcome: Result<(String, Outcome)>,
}

impl Args {
    fn run(&self, wanted: &Wanted, programs: &[Program], files: &[(PathBuf, PathBuf)]) -> Run {
        let outcome = self.try_run(wanted, programs, files);
        if let Err(error) = &outcome {
            eprintln!("error: {error:#}");
        }
        Run { name: wanted.name(), outcome }
    }

    fn try_run(
        &self,
        wanted: &Wanted,
        programs: &[Program],
        files: &[(PathBuf, PathBuf)],
    ) -> Result<(String, Outcome)> {
        let kernel = self.choice.prepare(wanted)?;
        eprintln!("== {}: Linux {}", kernel.name, kernel.release);
        let guest = self.settings.guest(&kernel, programs, files);
        let is_console = self.settings.console;
        let outcome = guest.run(&self.command, |stream, bytes| pass_on(stream, bytes, is_console))?;
        if !outcome.missing.is_empty() {
            eprintln!("modules that Linux {} has not: {}", kernel.release, outcome.missing.join(" "));
        }
        if outcome.code != 0 && !outcome.kernel_log.is_empty() && !is_console {
            eprintln!("the kernel said:\n{}", outcome.kernel_log);
        }
        let (boot, command, size) = (outcome.boot, outcome.command, outcome.initramfs_bytes >> 20);
        eprintln!(
            "booted in {boot:.1?} with {size} MiB of files, ran for {command:.1?}: exit code {}",
            outcome.code
        );
        Ok((kernel.release, outcome))
    }
}

impl Settings {
    /// A guest by these.
    pub fn guest<'a>(
        &'a self,
        kernel: &'a Kernel,
        programs: &'a [Program],
        files: &'a [(PathBuf, PathBuf)],
    ) -> Guest<'a> {
        Guest {
            kernel,
            machine: self.machine.clone(),
            programs,
            files,
            modules: &self.modules,
            devices: &[],
            environment: vec![("FLANNEL_TEST_PATIENCE".to_owned(), self.patience.to_string())],
            time_limit: self.time_limit.map_or(TIME_LIMIT, Duration::from_secs),
        }
    }
}

impl Run {
    fn code(&self) -> u8 {
        self.outcome.as_ref().map_or(1, |(_, outcome)| outcome.code)
    }

    /// For the summary.
    fn line(&self) -> String {
        let name = &self.name;
        match &self.outcome {
            Ok((release, outcome)) => {
                let time = outcome.boot + outcome.command;
                format!("{name:<8} Linux {release:<28} exit code {:<3} in {time:.1?}", outcome.code)
            }
            Err(error) => format!("{name:<8} {}", error.to_string().lines().next().unwrap_or_default()),
        }
    }
}

/// Shows what a guest says where this program says the same kind of thing.
fn pass_on(stream: Stream, bytes: &[u8], is_console: bool) {
    // The reader may have gone; the guest's end is waited for anyway.
    match stream {
        Stream::Stdout => drop(io::stdout().write_all(bytes).and_then(|()| io::stdout().flush())),
        Stream::Stderr => drop(io::stderr().write_all(bytes)),
        Stream::Console if is_console => drop(io::stderr().write_all(bytes)),
        Stream::Console | Stream::Status => {}
    }
}

/// `FILE:PATH`.
fn file(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.rsplit_once(':') {
        Some((file, path)) if path.starts_with('/') => Ok((file.into(), path.into())),
        _ => Err("it is FILE:PATH, and PATH begins with /".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::file;

    #[test]
    fn a_file_and_its_path_are_divided_at_the_last_colon() {
        assert_eq!(file("a:b:/c"), Ok(("a:b".into(), "/c".into())));
        assert!(file("a").is_err() && file("a:relative").is_err());
    }
}
