//! Packages of this machine: what is there, and how the rest gets here.

mod apt;
mod distribution;
mod packages;
mod service;

use anyhow::{Result, bail};

use self::apt::Apt;
use self::distribution::Distribution;
pub use self::packages::{BARE_ROOTS, DEBIAN_RUST, GUESTS, KUBERNETES, NODES, Package, TOOLS, llvm};

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
