//! The compiler and the linker of the kernel programs.
//!
//! The core library has to be built for the kernel's target, so the compiler must come with its sources and
//! take unstable flags. Two do: rustup's nightly with `rust-src`, and the compiler that Debian packages to
//! build browsers. The programs, maps and sections they make are the same; the bytes differ.

mod linker;

use std::env;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::compiler::{self, Compiler, DEBIAN_CARGO, DEBIAN_RUSTC, MINIMUM};
use crate::install::{DEBIAN_RUST, Installer, Package};
use crate::{step, workspace};

/// rustup as Debian packages it, which cannot be there together with the packaged compiler.
const DEBIAN_RUSTUP: &str = "/usr/bin/rustup";
/// What a person types to get the other compiler.
const RUSTUP_COMMAND: &str = "rustup toolchain install nightly --profile minimal --component rust-src";

/// Which compiler builds the kernel programs, on every verb's command line.
#[derive(Clone, Copy, clap::Args)]
pub struct Flag {
    /// The compiler of the kernel programs
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    toolchain: Choice,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// rustup's nightly if it is here with rust-src and bpf-linker, else the distribution's if it packages
    /// one, else rustup's nightly
    Auto,
    /// rustup's nightly with rust-src, which is installed if it is missing
    Rustup,
    /// The compiler in /usr/bin with its sources: Debian's rustc-web, cargo-web and rust-web-src
    Debian,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rustup,
    Debian,
}

/// A compiler and a linker that are there.
pub struct Toolchain {
    kind: Kind,
    reason: &'static str,
    compiler: Compiler,
    linker: PathBuf,
}

/// Chooses a compiler, and installs what is missing of it and of `others`.
pub fn ensure(flag: Flag, installer: &mut Installer, others: &[Package]) -> Result<Toolchain> {
    let (kind, reason) = choose(flag.toolchain, nightly_is_complete(), || debian_offers(installer))?;
    let compiler = match kind {
        Kind::Rustup => {
            installer.ensure(others)?;
            rustup_nightly()?
        }
        Kind::Debian => {
            if !debian_offers(installer)? {
                bail!(
                    "this distribution packages no rustc-web of Rust {}.{} or later; take rustup's nightly:\n    \
                     {RUSTUP_COMMAND}",
                    MINIMUM.0,
                    MINIMUM.1
                );
            }
            installer.ensure(&[DEBIAN_RUST, others].concat())?;
            Compiler::of(Command::new(DEBIAN_RUSTC))?
        }
    };
    let linker = match (linker::find(compiler.llvm), kind) {
        (Some(linker), _) => linker,
        (None, Kind::Rustup) => linker::build_with_sysroot(compiler.llvm, &nightly_sysroot()?, installer)?,
        (None, Kind::Debian) => linker::build_with_packages(compiler.llvm, installer)?,
    };
    Ok(Toolchain { kind, reason, compiler, linker })
}

fn choose(
    choice: Choice,
    nightly: bool,
    debian: impl FnOnce() -> Result<bool>,
) -> Result<(Kind, &'static str)> {
    Ok(match choice {
        Choice::Rustup => (Kind::Rustup, "--toolchain asks for it"),
        Choice::Debian => (Kind::Debian, "--toolchain asks for it"),
        Choice::Auto if nightly => (Kind::Rustup, "it is here with rust-src and bpf-linker"),
        Choice::Auto if debian()? => (
            Kind::Debian,
            "it comes with the sources of the core library, and rustup's nightly is not here with rust-src and \
             bpf-linker",
        ),
        Choice::Auto => {
            (Kind::Rustup, "this distribution packages no compiler that is new enough and has its sources")
        }
    })
}

/// Whether the distribution's compiler is here, or could be installed.
fn debian_offers(installer: &mut Installer) -> Result<bool> {
    if DEBIAN_RUST.iter().all(Package::is_present) {
        return Ok(true);
    }
    if Path::new(DEBIAN_RUSTUP).exists() {
        return Ok(false);
    }
    let candidate = installer.candidate("rustc-web")?;
    Ok(candidate.and_then(|version| compiler::version(&version)).is_some_and(|version| version >= MINIMUM))
}

/// A program of rustup's nightly. `rustup run` never installs a toolchain by itself, unlike `+nightly`.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
}

fn nightly_has_sources() -> bool {
    nightly_sysroot().is_ok_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

/// The folder of rustup's nightly.
fn nightly_sysroot() -> Result<PathBuf> {
    let mut rustc = nightly("rustc");
    rustc.args(["--print", "sysroot"]);
    let shown = step::shown(&rustc);
    let output = rustc.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Whether a person has set it up for kernel programs. The linker in target/tools does not count: it is there
/// because of a choice, and must not change the next one.
fn nightly_is_complete() -> bool {
    nightly_has_sources()
        && Compiler::of(nightly("rustc")).is_ok_and(|compiler| linker::on_path(compiler.llvm).is_some())
}

fn rustup_nightly() -> Result<Compiler> {
    if !nightly_has_sources() {
        if workspace::find("rustup").is_none() {
            bail!("there is no rustup: install it (https://rustup.rs), then run\n    {RUSTUP_COMMAND}");
        }
        let mut words = RUSTUP_COMMAND.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        step::run("Installing rustup's nightly with its sources", command)
            .context("the kernel programs need a compiler with its sources")?;
    }
    Compiler::of(nightly("rustc"))
}

impl Toolchain {
    /// The cargo that builds for the kernel, in the workspace and free of what a caller's environment says
    /// about other builds.
    pub fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Rustup => nightly("cargo"),
            Kind::Debian => Command::new(DEBIAN_CARGO),
        };
        command.current_dir(workspace::root());
        for (name, _) in env::vars_os().filter(|(name, _)| about_another_build(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        if self.kind == Kind::Debian {
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        // Set and empty: a wrapper in a configuration file is to be left out too.
        command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        command
    }
}

fn about_another_build(variable: &str) -> bool {
    const PREFIXES: [&str; 7] = [
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "RUSTC",
        "RUSTFLAGS",
    ];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
        || ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUSTUP_TOOLCHAIN"].contains(&variable)
}

impl Display for Toolchain {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Rustup => "rustup's nightly",
            Kind::Debian => "the distribution's /usr/bin/rustc",
        };
        let Compiler { release: (major, minor), llvm } = self.compiler;
        let (reason, linker) = (self.reason, self.linker.display());
        write!(
            formatter,
            "Kernel programs are compiled by {name} (Rust {major}.{minor}, LLVM {llvm}): {reason}.\n\
             They are linked by {linker}."
        )
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::{Choice, Kind, about_another_build, choose};

    fn kind(choice: Choice, nightly: bool, debian: bool) -> Kind {
        choose(choice, nightly, || Ok(debian)).unwrap().0
    }

    #[test]
    fn a_complete_nightly_comes_first() {
        let asked = || bail!("the distribution was asked for nothing");
        assert_eq!(choose(Choice::Auto, true, asked).unwrap().0, Kind::Rustup);
    }

    #[test]
    fn the_distribution_comes_second() {
        assert_eq!(kind(Choice::Auto, false, true), Kind::Debian);
        assert_eq!(kind(Choice::Auto, false, false), Kind::Rustup);
    }

    #[test]
    fn a_forced_choice_asks_nothing() {
        for nightly in [true, false] {
            let asked = || bail!("the distribution was asked for nothing");
            assert_eq!(choose(Choice::Rustup, nightly, asked).unwrap().0, Kind::Rustup);
            let asked = || bail!("the distribution was asked for nothing");
            assert_eq!(choose(Choice::Debian, nightly, asked).unwrap().0, Kind::Debian);
        }
    }

    #[test]
    fn variables_about_other_builds_are_known() {
        for variable in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO",
        ] {
            assert!(about_another_build(variable), "{variable}");
        }
        for variable in ["CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH"] {
            assert!(!about_another_build(variable), "{variable}");
        }
    }
}
