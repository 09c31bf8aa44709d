//! `setup`: installs what building, demo and tests need, and nothing that is there already.

mod apt;
mod distribution;
mod packages;
mod service;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::apt::Apt;
use self::distribution::Distribution;
pub use self::packages::{DEBIAN_RUST, GUESTS, Package, TOOLS, llvm};
use crate::toolchain::{self, Flag, Toolchain};

/// Installs everything that building, the demo and the tests need
///
/// Skips what is there already and says what each package is for. On the Debian and Ubuntu family it
/// installs packages with apt (as root or through sudo); elsewhere it names what is missing, and succeeds
/// once all of it is found. The linker for kernel programs goes to target/tools.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let toolchain = ensure(args.toolchain)?;
    eprintln!("{toolchain}");
    eprintln!("Everything that building, demo and tests need is installed.");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that everything is there; says nothing when it is.
pub fn ensure(flag: Flag) -> Result<Toolchain> {
    toolchain::ensure(flag, &mut Installer::of_this_machine()?, TOOLS)
}

/// How packages get onto this machine.
pub enum Installer {
    /// apt-get does it.
    Apt(Apt),
    /// The person does it: nothing is known of this distribution but its name.
    Hand(String),
}

impl Installer {
    pub fn of_this_machine() -> Result<Self> {
        let distribution = Distribution::of_this_machine()?;
        Ok(if distribution.has_apt { Self::Apt(Apt::default()) } else { Self::Hand(distribution.name) })
    }

    /// Installs those of `packages` that are missing.
    pub fn ensure(&mut self, packages: &[Package]) -> Result<()> {
        if packages.iter().all(Package::is_present) {
            return Ok(());
        }
        match self {
            Self::Apt(apt) => apt.install(packages),
            Self::Hand(name) => bail!(
                "{name} is not of the Debian or Ubuntu family: install by hand what is missing here\n{}",
                packages::list(packages)
            ),
        }
    }

    /// The version of a package that could be installed, if the distribution has it.
    pub fn candidate(&mut self, package: &str) -> Result<Option<String>> {
        match self {
            Self::Apt(apt) => apt.candidate(package),
            Self::Hand(_) => Ok(None),
        }
    }
}
