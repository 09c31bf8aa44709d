//! `setup`: installs what building, demo and tests need, and nothing that is there already.

use std::process::ExitCode;

use anyhow::Result;

use crate::install::{Installer, TOOLS};
use crate::kubernetes;
use crate::toolchain::{self, Flag, Toolchain};

/// Installs everything that building, the demo and the tests on this machine's kernel need
///
/// Skips what is there already and says what each package is for. On the Debian and Ubuntu family it
/// installs packages with apt (as root or through sudo), by lists that it has updated; elsewhere it names what is
/// missing, and succeeds once all of it is found. The linker for kernel programs goes to target/tools. What guests with
/// other kernels need is installed by the verbs that start some.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
    /// Also build the real programs of Kubernetes, once for this machine, and install what nodes need, for the suites
    /// kubernetes, cluster and conformance; half an hour to an hour
    #[arg(long)]
    kubernetes: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let toolchain = ensure(args.toolchain)?;
    eprintln!("{toolchain}");
    if args.kubernetes {
        kubernetes::ensure()?;
        eprintln!("Kubernetes is there.");
    }
    eprintln!("Everything that building, demo and tests need is installed.");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that everything is there; says nothing when it is.
pub fn ensure(flag: Flag) -> Result<Toolchain> {
    toolchain::ensure(flag, &mut Installer::of_this_machine()?, TOOLS)
}
