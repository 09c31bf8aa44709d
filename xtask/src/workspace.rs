//! Where the workspace is, and the cargo that works on it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::step;

/// The top folder of the workspace, whatever the current directory is.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The object file with every kernel program, where the userspace build looks for it.
pub fn object() -> PathBuf {
    root().join("target/ebpf/flannel-datapath.o")
}

/// The tools that `setup` builds for this workspace alone.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The cargo that runs this program, in the workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The programs are run on this machine, from the place where a plain build puts them.
    cargo.current_dir(root()).env_remove("CARGO_BUILD_TARGET");
    cargo
}

/// Runs a cargo command that shows its own progress.
pub fn run(mut command: Command) -> Result<()> {
    let shown = step::shown(&command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// What cargo knows about the workspace and its dependencies.
pub fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--locked", "--format-version", "1"]).args(arguments);
    let shown = step::shown(&command);
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{shown} answered no JSON"))
}

/// A program that cargo built, for the given profile's folder (`debug`, `release`).
pub fn built(profile: &str, program: &str) -> Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let target = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    let path = Path::new(target).join(profile).join(program);
    if !path.exists() {
        bail!("cargo did not build {}: does a cargo configuration set build.target?", path.display());
    }
    Ok(path)
}

/// The file a command name stands for; system folders count even if a user's PATH leaves them out.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// PATH with the folders of system commands, which hold `ip` and `nft`.
pub fn search_path() -> String {
    let mut path = env::var("PATH").unwrap_or_default();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !path.split(':').any(|known| known == folder) {
            path = format!("{path}:{folder}");
        }
    }
    let path = path.trim_start_matches(':');
    match kernel_tools(Path::new(KERNEL_TOOLS)) {
        Some(folder) if !path.split(':').any(|known| folder == Path::new(known)) => {
            format!("{}:{path}", folder.display())
        }
        _ => path.to_owned(),
    }
}

/// Where Ubuntu has the tools of each kernel. On its PATH is a script that looks here for those of the kernel that runs,
/// which can be another one: the tools work with it all the same.
const KERNEL_TOOLS: &str = "/usr/lib/linux-tools";

/// The last folder there that has a bpftool.
fn kernel_tools(folder: &Path) -> Option<PathBuf> {
    let kernels = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|kernel| kernel.path());
    kernels.filter(|kernel| kernel.join("bpftool").is_file()).max()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{find, kernel_tools, root, search_path};

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file(), "{} is no workspace", root().display());
    }

    #[test]
    fn commands_are_found_with_their_path() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh") && path.is_absolute()));
        assert_eq!(find("no-such-command-here"), None);
    }

    #[test]
    fn system_folders_are_searched_once() {
        let path = search_path();
        assert_eq!(path.split(':').filter(|folder| *folder == "/usr/sbin").count(), 1, "{path}");
    }

    #[test]
    fn the_last_kernel_with_a_bpftool_has_the_tools() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kernel_tools(folder.path()), None);
        for kernel in ["6.8.0-31-generic", "6.8.0-40-generic", "6.8.0-50-without"] {
            fs::create_dir(folder.path().join(kernel)).unwrap();
        }
        for kernel in ["6.8.0-31-generic", "6.8.0-40-generic"] {
            fs::write(folder.path().join(kernel).join("bpftool"), "").unwrap();
        }
        assert_eq!(kernel_tools(folder.path()), Some(folder.path().join("6.8.0-40-generic")));
    }
}
