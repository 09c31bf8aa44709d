//! bpf-linker: finding one that reads what the compiler writes, or putting one into target/tools.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Installer};
use crate::{step, workspace};

const VERSION: &str = "0.13.0";
/// The versions of LLVM that this bpf-linker can be built with.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Where Debian puts one major version of LLVM.
pub fn llvm_prefix(major: u32) -> String {
    format!("/usr/lib/llvm-{major}")
}

/// A linker of the right version whose LLVM is no older than the compiler's: ours, or one on PATH.
pub fn find(llvm: u32) -> Option<PathBuf> {
    [Some(ours()), workspace::find("bpf-linker")].into_iter().flatten().find(|linker| fits(linker, llvm))
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

/// The major version of LLVM in what ldd says. There is none in the project's own releases: they hold the
/// newest LLVM themselves.
fn linked_llvm(ldd: &str) -> Option<u32> {
    let name = ldd.split_whitespace().find_map(|word| word.strip_prefix("libLLVM"))?;
    name.split(|letter: char| !letter.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

/// Builds a linker with the distribution's LLVM.
pub fn build(llvm: u32, installer: &mut Installer) -> Result<PathBuf> {
    if !LLVM.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION} works with LLVM {} to {}, and the distribution's compiler has LLVM {llvm}: use \
             --toolchain rustup",
            LLVM.start(),
            LLVM.end()
        );
    }
    installer.ensure(&setup::llvm(llvm))?;
    let prefix = llvm_prefix(llvm);
    let feature = format!("llvm-{llvm}");
    let mut install = workspace::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(workspace::tools())
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", format!("{prefix}/bin:{}", workspace::search_path()));
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        install.env_remove(flags);
    }
    step::run("Building bpf-linker, the linker of the kernel programs, into target/tools", install)?;
    checked(llvm)
}

/// Takes the linker from its project's releases, as its documentation recommends for rustup's compilers.
pub fn download(llvm: u32, installer: &mut Installer) -> Result<PathBuf> {
    installer.ensure(setup::DOWNLOAD)?;
    let url = format!(
        "https://github.com/aya-rs/bpf-linker/releases/download/v{VERSION}/bpf-linker-{ARCH}-unknown-linux-musl.tar.zst"
    );
    let folder = workspace::tools().join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let archive = workspace::tools().join("bpf-linker.tar.zst");
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "3", "--output"]);
    curl.arg(&archive).arg(&url);
    step::run("Downloading bpf-linker, the linker of the kernel programs, into target/tools", curl)?;
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "--extract", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&folder)
        .arg("bpf-linker");
    step::run("Unpacking bpf-linker", tar)?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
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
    use super::linked_llvm;

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
}
