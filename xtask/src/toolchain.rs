//! The compiler and the linker of the kernel programs.
//!
//! The core library has to be built for the kernel's target, so the compiler must come with its sources and
//! take unstable flags. Those of rustup do with the component `rust-src`, and so does the one that Debian packages to
//! build browsers. The programs, maps and sections they make are the same; the bytes differ.

mod linker;
mod rustup;

use std::env;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::linker::Llvm;
use self::rustup::Rustup;
use crate::compiler::{self, Compiler, DEBIAN_CARGO, DEBIAN_RUSTC, MINIMUM};
use crate::install::{DEBIAN_RUST, Installer, Package};
use crate::workspace;

/// rustup as Debian packages it, which cannot be there together with the packaged compiler.
const DEBIAN_RUSTUP: &str = "/usr/bin/rustup";

/// Which compiler builds the kernel programs, on every verb's command line.
#[derive(Clone, Copy, clap::Args)]
pub struct Flag {
    /// The compiler of the kernel programs
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    toolchain: Choice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// rustup's nightly if it is here with rust-src and bpf-linker, else the distribution's if it packages
    /// one, else another one of rustup's
    Auto,
    /// rustup's nightly if it is here with rust-src, else the toolchain that runs this cargo, which is given rust-src
    Rustup,
    /// The compiler in /usr/bin with its sources: Debian's rustc-web, cargo-web and rust-web-src
    Debian,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Rustup(Rustup),
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
    let (choice, reason) = choose(flag.toolchain, nightly_is_complete(), || debian_offers(installer))?;
    if choice == Choice::Rustup {
        installer.ensure(others)?;
        return of_rustup(reason, installer);
    }
    if !debian_offers(installer)? {
        bail!(
            "this distribution packages no rustc-web of Rust {}.{} or later: use --toolchain=rustup",
            MINIMUM.0,
            MINIMUM.1
        );
    }
    match installer.ensure(&[DEBIAN_RUST, others].concat()) {
        Ok(()) => of_debian(reason, installer),
        Err(error) if flag.toolchain == Choice::Auto => {
            eprintln!("warning: {error:#}\nTrying without the distribution's compiler.");
            installer.ensure(others)?;
            of_rustup("the distribution's could not be installed", installer)
        }
        Err(error) => Err(error),
    }
}

fn of_debian(reason: &'static str, installer: &mut Installer) -> Result<Toolchain> {
    let compiler = Compiler::of(Command::new(DEBIAN_RUSTC))?;
    // That of rustup serves too, where there is one.
    let sources = [Some(Llvm::Distribution), Rustup::active().sysroot().ok().map(Llvm::Compiler)];
    let linker = linker::ensure(compiler.llvm, sources.into_iter().flatten(), installer)?;
    Ok(Toolchain { kind: Kind::Debian, reason, compiler, linker })
}

fn of_rustup(reason: &'static str, installer: &mut Installer) -> Result<Toolchain> {
    let (rustup, compiler) = Rustup::with_sources()?;
    let sources = [Llvm::Compiler(rustup.sysroot()?), Llvm::Distribution];
    let linker = linker::ensure(compiler.llvm, sources, installer)?;
    Ok(Toolchain { kind: Kind::Rustup(rustup), reason, compiler, linker })
}

/// One of the two, and why it is that one.
fn choose(
    choice: Choice,
    nightly: bool,
    debian: impl FnOnce() -> Result<bool>,
) -> Result<(Choice, &'static str)> {
    Ok(match choice {
        Choice::Rustup | Choice::Debian => (choice, "--toolchain asks for it"),
        Choice::Auto if nightly => (Choice::Rustup, "it is here with rust-src and bpf-linker"),
        Choice::Auto if debian()? => (
            Choice::Debian,
            "it comes with the sources of the core library, and rustup's nightly is not here with rust-src and \
             bpf-linker",
        ),
        Choice::Auto => {
            (Choice::Rustup, "this distribution packages no compiler that is new enough and has its sources")
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

/// Whether a person has set rustup's nightly up for kernel programs. The linker in target/tools does not count: it is
/// there because of a choice, and must not change the next one.
fn nightly_is_complete() -> bool {
    let usable = Rustup::nightly().usable();
    usable.is_some_and(|compiler| linker::on_path(compiler.llvm).is_some())
}

impl Toolchain {
    /// The cargo that builds for the kernel, in the workspace and free of what a caller's environment says
    /// about other builds.
    pub fn cargo(&self) -> Command {
        let mut command = match &self.kind {
            Kind::Rustup(rustup) => rustup.command("cargo"),
            Kind::Debian => Command::new(DEBIAN_CARGO),
        };
        command.current_dir(workspace::root());
        for (name, _) in env::vars_os().filter(|(name, _)| about_another_build(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        if self.kind == Kind::Debian {
            command.env("RUSTC", DEBIAN_RUSTC);
        }
        // Compilers of releases then take unstable flags.
        command.env("RUSTC_BOOTSTRAP", "1");
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
        let name = match &self.kind {
            Kind::Rustup(rustup) => format!("rustup's {rustup}"),
            Kind::Debian => format!("the distribution's {DEBIAN_RUSTC}"),
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

    use super::{Choice, about_another_build, choose};

    fn chosen(choice: Choice, nightly: bool, debian: bool) -> Choice {
        choose(choice, nightly, || Ok(debian)).unwrap().0
    }

    #[test]
    fn a_complete_nightly_comes_first() {
        let asked = || bail!("the distribution was asked for nothing");
        assert_eq!(choose(Choice::Auto, true, asked).unwrap().0, Choice::Rustup);
    }

    #[test]
    fn the_distribution_comes_second() {
        assert_eq!(chosen(Choice::Auto, false, true), Choice::Debian);
        assert_eq!(chosen(Choice::Auto, false, false), Choice::Rustup);
    }

    #[test]
    fn a_forced_choice_asks_nothing() {
        for choice in [Choice::Rustup, Choice::Debian] {
            for nightly in [true, false] {
                let asked = || bail!("the distribution was asked for nothing");
                assert_eq!(choose(choice, nightly, asked).unwrap().0, choice);
            }
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
