//! `build-ebpf`: the kernel programs, as one object file that the userspace build embeds.

mod calls;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::install::Installer;
use crate::toolchain::{self, Flag, Toolchain};
use crate::workspace;

/// Builds the kernel programs into target/ebpf/flannel-datapath.o
///
/// First installs what is missing of their compiler and linker, and says which ones are used and why.
/// Fails if the object calls memset, memcpy, memmove, memcmp or bcmp: such a call makes the kernel's
/// verifier refuse a program under CAP_BPF and CAP_NET_ADMIN alone.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let toolchain = toolchain::ensure(args.toolchain, &mut Installer::of_this_machine()?, &[])?;
    build(&toolchain)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the object, checks it, and puts it where the userspace build looks for it.
pub fn build(toolchain: &Toolchain) -> Result<()> {
    eprintln!("{toolchain}");
    let mut cargo = toolchain.cargo();
    // BTF gives names and types to the kernel and to readers of maps.
    cargo.env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf");
    cargo.args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", "bpfel-unknown-none"]);
    cargo.args(["-p", "flannel-ebpf", "--bin", "flannel-datapath", "--target-dir", "target/ebpf"]);
    workspace::run(cargo)?;
    let built = workspace::root().join("target/ebpf/bpfel-unknown-none/release/flannel-datapath");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    check(&bytes)?;
    replace(&workspace::object(), &bytes)
}

/// Fails if the object holds a call that the verifier refuses.
fn check(object: &[u8]) -> Result<()> {
    let calls = calls::to_memory_functions(object)?;
    if !calls.is_empty() {
        let calls: String = calls.iter().map(|call| format!("\n    {call}")).collect();
        bail!(
            "the kernel programs call memory functions, which the verifier refuses without CAP_PERFMON; whole \
             words instead of byte arrays mend it:{calls}"
        );
    }
    Ok(())
}

/// Writes a file in one step, and only if it changes: its time decides whether the userspace is built again.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::replace;

    #[test]
    fn a_file_is_replaced_only_if_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object.o");
        let time = || fs::metadata(&path).unwrap().modified().unwrap();
        replace(&path, b"one").unwrap();
        let first = time();
        replace(&path, b"one").unwrap();
        assert_eq!(time(), first);
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
