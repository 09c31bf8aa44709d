//! `bench`: measurements of the release programs on this machine.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::toolchain::Flag;
use crate::{build_ebpf, privilege, setup, workspace};

/// Measures the release programs on this machine
///
/// First does what `setup` and `build-ebpf` do, and builds the release programs. Then runs as root, through
/// sudo if need be, and prints the figures beside the goals. Removes what it made, however it ends.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// How flanneld keeps up with the leases of large networks
    Control(Control),
}

#[derive(clap::Args)]
struct Control {
    #[command(flatten)]
    toolchain: Flag,
    /// Writes the figures to docs/benchmarks/control.json, too
    #[arg(long)]
    write: bool,
    /// Passed on to the measurement; -- --help lists them
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.subject {
        Subject::Control(args) => control(args),
    }
}

fn control(args: &Control) -> Result<ExitCode> {
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked", "-p", "flannel-userspace", "-p", "flannel-tests"]);
    build.arg("--bins");
    workspace::run(build)?;
    let mut bench = privilege::command(workspace::built("release", "bench-control")?)?;
    if args.write {
        let directory = workspace::root().join("docs/benchmarks");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        bench.arg("--write").arg(directory.join("control.json"));
    }
    bench.args(&args.arguments);
    // Ctrl-C then reaches the measurement alone, and nothing ends before it has cleaned up.
    Err(privilege::become_command(bench))
}
