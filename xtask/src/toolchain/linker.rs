//! bpf-linker: finding one that reads what the compiler writes, or putting one into target/tools.

use std::ffi::{OsStr, OsString};
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
pub fn find(llvm: u32) -> Option<PathBuf> {
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

/// Builds a linker with the LLVM that the distribution packages.
pub fn build_with_packages(llvm: u32, installer: &mut Installer) -> Result<PathBuf> {
    check_llvm(llvm)?;
    installer.ensure(&install::llvm(llvm))?;
    build(llvm, Path::new(&llvm_prefix(llvm)))
}

/// Builds a linker with the LLVM that a compiler of rustup brings, in whose folder `sysroot` it stays: nothing is
/// downloaded but crates, whose checksums cargo knows. Where that fails, with the LLVM that the distribution packages.
pub fn build_with_sysroot(llvm: u32, sysroot: &Path, installer: &mut Installer) -> Result<PathBuf> {
    check_llvm(llvm)?;
    let first = link_llvm(sysroot).and_then(|prefix| build(llvm, &prefix));
    let Err(first) = first else { return first };
    eprintln!("{first:#}\nTrying the distribution's LLVM.");
    build_with_packages(llvm, installer).with_context(|| {
        format!("there is no linker of the kernel programs: put bpf-linker {VERSION} on PATH")
    })
}

fn check_llvm(llvm: u32) -> Result<()> {
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
fn link_llvm(sysroot: &Path) -> Result<PathBuf> {
    let (prefix, compiler) = (workspace::tools().join("llvm"), sysroot.join("lib"));
    let library = shared_llvm(&compiler)?;
    let folder = prefix.join("lib");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in [OsStr::new("libLLVM.so"), &library] {
        symlink(compiler.join(&library), folder.join(name)).context("cannot link the compiler's LLVM")?;
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
fn build(llvm: u32, prefix: &Path) -> Result<PathBuf> {
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
    step::run("Building bpf-linker, the linker of the kernel programs, into target/tools", install)?;
    checked(llvm)
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
    use super::{LLVM, check_llvm, linked_llvm, shared_llvm};

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
