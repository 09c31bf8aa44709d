//! `lint`: everything that is checked without running a test.

mod circles;
mod dependencies;
mod licences;
mod modules;
mod versions;

use std::process::ExitCode;

use anyhow::{Error, Result};

use self::dependencies::Dependencies;
use crate::toolchain::Flag;
use crate::{build_ebpf, setup, workspace};

/// Checks the code without running it
///
/// Checks that rustfmt would change nothing; that clippy has nothing to say about any target, tests
/// included; that the kernel programs call no memory functions; that no two modules of a crate need each other; and
/// that every dependency comes from crates.io under a licence that deny.toml allows, and in one version. First does what `setup` and
/// `build-ebpf` do. Continues after a failure, to report all.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    // The object is checked as it is built.
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let dependencies = Dependencies::read()?;
    let checks = [
        format(),
        clippy(),
        circles::check(),
        licences::check(&dependencies),
        versions::check(&dependencies),
    ];
    let failures: Vec<Error> = checks.into_iter().filter_map(Result::err).collect();
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
