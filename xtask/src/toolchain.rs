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
    /// Of what is here: rustup's nightly if it has rust-src and bpf-linker is on PATH, the distribution's, the toolchain
    /// that runs this cargo if it has rust-src. Else the distribution's if it packages one, else that toolchain, which is
    /// given rust-src
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
    let (choice, reason) = choose(flag.toolchain, &Here::look(), || debian_offers(installer))?;
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

/// Compilers that are on this machine with their sources.
#[derive(Clone, Copy, Debug)]
struct Here {
    /// rustup's nightly, and a linker that somebody put on PATH. That in target/tools does not count: it is there because
    /// of a choice, and must not change the next one.
    nightly: bool,
    debian: bool,
    /// The toolchain of rustup that runs this cargo.
    active: bool,
}

impl Here {
    fn look() -> Self {
        let nightly = Rustup::nightly().usable();
        Self {
            nightly: nightly.is_some_and(|compiler| linker::on_path(compiler.llvm).is_some()),
            debian: DEBIAN_RUST.iter().all(Package::is_present),
            active: Rustup::active().usable().is_some(),
        }
    }
}

/// One of the two, and why it is that one. What is here comes before what could be: nobody is asked for lists then.
fn choose(
    choice: Choice,
    here: &Here,
    debian_offers: impl FnOnce() -> Result<bool>,
) -> Result<(Choice, &'static str)> {
    const WITH_SOURCES: &str = "it is here with the sources of the core library";
    Ok(match choice {
        Choice::Rustup | Choice::Debian => (choice, "--toolchain asks for it"),
        Choice::Auto if here.nightly => (Choice::Rustup, "it is here with rust-src and bpf-linker"),
        Choice::Auto if here.debian => (Choice::Debian, WITH_SOURCES),
        Choice::Auto if here.active => (Choice::Rustup, WITH_SOURCES),
        Choice::Auto if debian_offers()? => (
            Choice::Debian,
            "it comes with the sources of the core library, and no compiler of rustup is here with them",
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

    use super::{Choice, Here, about_another_build, choose};

    const NOTHING: Here = Here { nightly: false, debian: false, active: false };

    fn chosen(here: Here) -> Choice {
        let asked = || bail!("the distribution was asked for nothing");
        choose(Choice::Auto, &here, asked).unwrap().0
    }

    #[test]
    fn what_is_here_is_taken_in_order_and_nobody_is_asked() {
        let all = Here { nightly: true, debian: true, active: true };
        assert_eq!(chosen(all), Choice::Rustup);
        assert_eq!(chosen(Here { nightly: false, ..all }), Choice::Debian);
        assert_eq!(chosen(Here { active: true, ..NOTHING }), Choice::Rustup);
    }

    #[test]
    fn where_nothing_is_here_the_distribution_comes_first() {
        assert_eq!(choose(Choice::Auto, &NOTHING, || Ok(true)).unwrap().0, Choice::Debian);
        assert_eq!(choose(Choice::Auto, &NOTHING, || Ok(false)).unwrap().0, Choice::Rustup);
        assert!(choose(Choice::Auto, &NOTHING, || bail!("no lists")).is_err());
    }

    #[test]
    fn a_forced_choice_asks_nothing() {
        for choice in [Choice::Rustup, Choice::Debian] {
            let asked = || bail!("the distribution was asked for nothing");
            assert_eq!(choose(choice, &NOTHING, asked).unwrap().0, choice);
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
