//! Toolchains of rustup: which of them compiles the kernel programs, and how it comes to the sources of `core`.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::linker;
use crate::compiler::{Compiler, MINIMUM};
use crate::{step, workspace};

const NIGHTLY: &str = "nightly";
const STABLE: &str = "stable";

/// A toolchain, by its name. It need not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rustup {
    name: String,
}

impl Rustup {
    pub fn nightly() -> Self {
        Self { name: NIGHTLY.to_owned() }
    }

    /// The one that runs this cargo, which is new enough for the workspace; without one, stable.
    pub fn active() -> Self {
        Self { name: env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| STABLE.to_owned()) }
    }

    /// One with the sources of its core library: nightly if it is here with them, else the active one, which is given them.
    /// Where they cannot be had, nightly, which is another download.
    pub fn with_sources() -> Result<(Self, Compiler)> {
        for here in [Self::nightly(), Self::active()] {
            if let Some(compiler) = here.usable() {
                return Ok((here, compiler));
            }
        }
        if workspace::find("rustup").is_none() {
            bail!(
                "there is no rustup, whose compilers come with their sources: install it (https://rustup.rs)"
            );
        }
        let (active, nightly) = (Self::active(), Self::nightly());
        let Err(error) = active.add_sources() else { return active.into_usable() };
        eprintln!("warning: {error:#}\nTrying rustup's {nightly}.");
        nightly.install().with_context(|| active.remedy())?;
        nightly.into_usable()
    }

    fn into_usable(self) -> Result<(Self, Compiler)> {
        match self.usable() {
            Some(compiler) => Ok((self, compiler)),
            None => bail!(
                "rustup's {self} cannot compile the kernel programs: that takes Rust {}.{} or later with rust-src, and an \
                 LLVM for which there is a linker",
                MINIMUM.0,
                MINIMUM.1
            ),
        }
    }

    /// Its compiler, if that is here, can compile the kernel programs, and what it writes can be linked.
    pub fn usable(&self) -> Option<Compiler> {
        let compiler = Compiler::of(self.command("rustc")).ok()?;
        let is_linked = linker::check_llvm(compiler.llvm).is_ok() || linker::on_path(compiler.llvm).is_some();
        (compiler.release >= MINIMUM && is_linked && self.has_sources()).then_some(compiler)
    }

    fn has_sources(&self) -> bool {
        self.sysroot()
            .is_ok_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file())
    }

    /// Its folder.
    pub fn sysroot(&self) -> Result<PathBuf> {
        let mut rustc = self.command("rustc");
        rustc.args(["--print", "sysroot"]);
        let shown = step::shown(&rustc);
        let output = rustc.output().with_context(|| format!("cannot run {shown}"))?;
        if !output.status.success() {
            bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().into())
    }

    /// A program of it. `rustup run` never installs a toolchain by itself, unlike `+nightly`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", &self.name, program]);
        command
    }

    /// rustup compares what it downloads with the checksums of the toolchain's manifest.
    fn add_sources(&self) -> Result<()> {
        let mut command = Command::new("rustup");
        command.args(["component", "add", "rust-src", "--toolchain", &self.name]);
        step::run(&format!("Adding its sources to rustup's {self}"), command)
    }

    fn install(&self) -> Result<()> {
        let mut command = Command::new("rustup");
        command.args(["toolchain", "install", &self.name, "--profile", "minimal", "--component", "rust-src"]);
        step::run(&format!("Installing rustup's {self} with its sources"), command)
    }

    /// What a person does where neither it nor another one gets its sources.
    fn remedy(&self) -> String {
        format!(
            "the kernel programs need a compiler with its sources: have `rustup component add rust-src --toolchain {self}` \
             succeed, then run this again"
        )
    }
}

impl Display for Rustup {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Rustup;

    #[test]
    fn a_toolchain_that_is_not_there_is_not_usable() {
        let none = Rustup { name: "no-such-toolchain".to_owned() };
        assert_eq!(none.usable(), None);
        assert!(none.sysroot().is_err());
    }

    #[test]
    fn a_failure_names_the_command_that_mends_it() {
        let remedy = Rustup { name: "stable".to_owned() }.remedy();
        assert!(remedy.contains("`rustup component add rust-src --toolchain stable`"), "{remedy}");
    }
}
