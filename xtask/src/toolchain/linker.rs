//! bpf-linker: finding one that reads what the compiler writes, or putting one into target/tools.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::compiler::llvm_prefix;
use crate::install::{self, Installer};
use crate::{step, workspace};

const VERSION: &str = "0.13.0";
/// The versions of LLVM that this bpf-linker can be built with.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// A linker of the right version whose LLVM is no older than the compiler's: ours, or one on PATH.
fn find(llvm: u32) -> Option<PathBuf> {
    Some(ours()).filter(|linker| fits(linker, llvm)).or_else(|| on_path(llvm))
}

pub fn on_path(llvm: u32) -> Option<PathBuf> {
    workspace::find("bpf-linker").filter(|linker| fits(linker, llvm))
}

fn ours() -> PathBuf {
    workspace::tools().join("bin/bpf-linker")
}

fn fits(linker: &Path, llvm: u32) -> bool {
    let says = |command: &mut Command| {
        command
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    };
    says(Command::new(linker).arg("--version")).trim() == format!("bpf-linker {VERSION}")
        && linked_llvm(&says(Command::new("ldd").arg(linker))).is_none_or(|linked| linked >= llvm)
}

/// The major version of LLVM in what ldd says. There is none where a linker holds its LLVM itself, as the project's own
/// releases do: they have the newest.
fn linked_llvm(ldd: &str) -> Option<u32> {
    let name = ldd.split_whitespace().find_map(|word| word.strip_prefix("libLLVM"))?;
    name.split(|letter: char| !letter.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

/// Whose LLVM a linker is built with.
#[derive(Debug, PartialEq, Eq)]
pub enum Llvm {
    /// That of the distribution's packages, of the compiler's major version.
    Distribution,
    /// That which a compiler of rustup brings, in whose folder it stays. Nothing is downloaded but crates.
    Compiler(PathBuf),
}

/// A linker for code of `llvm`: one that is here, or one that is built from its crate into target/tools, with the first
/// of `sources` with which that succeeds. cargo compares each crate with its checksum, and apt each package.
pub fn ensure(
    llvm: u32,
    sources: impl IntoIterator<Item = Llvm>,
    installer: &mut Installer,
) -> Result<PathBuf> {
    if let Some(linker) = find(llvm) {
        return Ok(linker);
    }
    check_llvm(llvm)?;
    let build = |source: Llvm| {
        let (major, prefix) = source.prefix(llvm, installer)?;
        build(major, &prefix)?;
        checked(llvm)
    };
    first(sources, build).with_context(|| {
        format!(
            "there is no linker of the kernel programs: put bpf-linker {VERSION} on PATH, then run this again"
        )
    })
}

/// What is made of the first source of which it can be made; else every failure.
fn first<T>(sources: impl IntoIterator<Item = Llvm>, mut make: impl FnMut(Llvm) -> Result<T>) -> Result<T> {
    let mut failures = Vec::new();
    for source in sources {
        if !failures.is_empty() {
            eprintln!("warning: {}\nTrying {source}.", failures.join("\n"));
        }
        let name = source.to_string();
        match make(source) {
            Ok(made) => return Ok(made),
            Err(error) => failures.push(format!("with {name}: {error:#}")),
        }
    }
    bail!("{}", failures.join("\n"))
}

impl Llvm {
    /// Its major version, and the folder where it is, for code of `llvm`.
    fn prefix(&self, llvm: u32, installer: &mut Installer) -> Result<(u32, PathBuf)> {
        match self {
            Self::Distribution => {
                installer.ensure(&install::llvm(llvm))?;
                Ok((llvm, llvm_prefix(llvm).into()))
            }
            Self::Compiler(sysroot) => {
                let folder = sysroot.join("lib");
                let library = shared_llvm(&folder)?;
                let major = linked_llvm(&library.to_string_lossy()).context("its LLVM has no version")?;
                if major < llvm {
                    bail!("LLVM {major} in {} does not read what LLVM {llvm} writes", sysroot.display());
                }
                check_llvm(major)?;
                Ok((major, link_llvm(&folder, &library)?))
            }
        }
    }
}

impl Display for Llvm {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distribution => write!(formatter, "the distribution's LLVM"),
            Self::Compiler(sysroot) => write!(formatter, "the LLVM in {}", sysroot.display()),
        }
    }
}

/// Fails where no linker can be built for code of that LLVM.
pub fn check_llvm(llvm: u32) -> Result<()> {
    if !LLVM.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION} works with LLVM {} to {}, and the compiler of the kernel programs has LLVM {llvm}: \
             choose the other one with --toolchain",
            LLVM.start(),
            LLVM.end()
        );
    }
    Ok(())
}

/// A prefix in target/tools whose library folder has the LLVM of a compiler under the two names that linking needs: the
/// one that linkers look for, and its own.
fn link_llvm(compiler: &Path, library: &OsStr) -> Result<PathBuf> {
    let prefix = workspace::tools().join("llvm");
    let folder = prefix.join("lib");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in [OsStr::new("libLLVM.so"), library] {
        symlink(compiler.join(library), folder.join(name)).context("cannot link the compiler's LLVM")?;
    }
    Ok(prefix)
}

/// The name of the library in a folder that holds LLVM: `libLLVM.so.22.1-rust-1.95.0-stable`.
fn shared_llvm(folder: &Path) -> Result<OsString> {
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = files.filter_map(Result::ok).map(|file| file.file_name());
    let mut libraries = names.filter(|name| name.as_encoded_bytes().starts_with(b"libLLVM.so."));
    libraries.next().with_context(|| format!("there is no libLLVM.so in {}", folder.display()))
}

/// Builds a linker with the LLVM in `prefix`. Not optimised: it spends its time in LLVM.
fn build(llvm: u32, prefix: &Path) -> Result<()> {
    let feature = format!("llvm-{llvm}");
    let mut install = workspace::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--debug"])
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(workspace::tools())
        .env("LLVM_PREFIX", prefix)
        .env("PATH", format!("{}/bin:{}", prefix.display(), workspace::search_path()));
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        install.env_remove(flags);
    }
    step::run("Building bpf-linker, the linker of the kernel programs, into target/tools", install)
}

fn checked(llvm: u32) -> Result<PathBuf> {
    let linker = ours();
    if !fits(&linker, llvm) {
        bail!("{} is not bpf-linker {VERSION} with LLVM {llvm} or newer", linker.display());
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::{LLVM, Llvm, check_llvm, first, linked_llvm, shared_llvm};

    fn sources() -> [Llvm; 2] {
        [Llvm::Distribution, Llvm::Compiler("/toolchain".into())]
    }

    #[test]
    fn the_second_source_is_tried_only_where_the_first_fails() {
        assert_eq!(first(sources(), Ok).unwrap(), Llvm::Distribution);
        let second = first(sources(), |source| match source {
            Llvm::Distribution => bail!("no network"),
            Llvm::Compiler(_) => Ok(source),
        });
        assert_eq!(second.unwrap(), Llvm::Compiler("/toolchain".into()));
    }

    #[test]
    fn a_failure_of_all_sources_names_each() {
        let error = first(sources(), |source| -> anyhow::Result<()> { bail!("{source} is not there") });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the distribution's LLVM is not there"), "{error}");
        assert!(error.contains("the LLVM in /toolchain is not there"), "{error}");
    }

    #[test]
    fn the_llvm_a_linker_loads_is_read() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f27)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)\n";
        assert_eq!(linked_llvm(ldd), Some(22));
        assert_eq!(linked_llvm("\tlibLLVM-21.so.1 => /usr/lib/libLLVM-21.so.1 (0x0)\n"), Some(21));
    }

    #[test]
    fn a_linker_that_holds_its_llvm_loads_none() {
        assert_eq!(linked_llvm("\tnot a dynamic executable\n"), None);
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"), None);
    }

    #[test]
    fn the_llvm_of_a_compiler_is_the_library_and_not_the_script_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shared_llvm(folder.path()).is_err());
        for name in
            ["libLLVM-22-rust-1.95.0-stable.so", "libLLVM.so.22.1-rust-1.95.0-stable", "librustc_driver-6.so"]
        {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(shared_llvm(folder.path()).unwrap(), "libLLVM.so.22.1-rust-1.95.0-stable");
    }

    #[test]
    fn an_llvm_that_the_linker_cannot_be_built_with_is_refused_by_number() {
        assert!(LLVM.clone().all(|llvm| check_llvm(llvm).is_ok()));
        let error = check_llvm(LLVM.end() + 1).unwrap_err().to_string();
        assert!(error.contains(&format!("has LLVM {}", LLVM.end() + 1)), "{error}");
    }
}
