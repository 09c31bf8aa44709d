//! `lint`: everything that is checked without running a test.

mod circles;
mod licences;
mod modules;

use std::process::ExitCode;

use anyhow::{Error, Result};

use crate::toolchain::Flag;
use crate::{build_ebpf, setup, workspace};

/// Checks the code without running it
///
/// Checks that rustfmt would change nothing; that clippy has nothing to say about any target, tests
/// included; that the kernel programs call no memory functions; that no two modules of a crate need each other; and
/// that every dependency comes from crates.io under a licence that deny.toml allows. First does what `setup` and
/// `build-ebpf` do. Continues after a failure, to report all.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    // The object is checked as it is built.
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let failures: Vec<Error> = [format(), clippy(), circles::check(), licences::check()]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    for failure in &failures {
        eprintln!("error: {failure:#}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn format() -> Result<()> {
    let mut fmt = workspace::cargo();
    fmt.args(["fmt", "--all", "--check"]);
    workspace::run(fmt)
}

fn clippy() -> Result<()> {
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]);
    workspace::run(clippy)
}
