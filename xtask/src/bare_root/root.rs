//! The root of a bare system on a disk, and commands that run in it.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::disk::Disk;
use super::system::System;
use crate::vm::output;
use crate::{privilege, step, workspace};

/// Where this machine has certificates of its own, without which a system may reach no registry.
const CERTIFICATES: &str = "/usr/local/share/ca-certificates";
/// rustup's folders, of root.
const RUSTUP: &str = "root/.rustup";
const CARGO: &str = "root/.cargo";
/// Where the project's files are.
const PROJECT: &str = "/flannel-ebpf";
/// The names under which rustup plays the programs of a toolchain.
const PROXIES: [&str; 3] = ["cargo", "rustc", "rustdoc"];

pub struct Root {
    pub system: System,
    folder: PathBuf,
}

/// What has come over the network and is still there, in bytes. apt unpacks its lists, whose size says nothing.
pub struct Downloads {
    packages: u64,
    crates: u64,
}

impl Root {
    /// A system as the README asks for, with the files of HEAD.
    pub fn make(disk: &Disk, system: System) -> Result<Self> {
        let root = Self { system, folder: disk.folder().join("root") };
        let keyring = disk.folder().join("keyring.gpg");
        fs::copy(system.keyring()?, &keyring).context("cannot copy the keys of an archive")?;
        step::run(&format!("Making a bare {system}"), root.bootstrap(&keyring))?;
        root.trust_as_this_machine()?;
        root.copy_project()?;
        root.copy_toolchain()?;
        Ok(root)
    }

    /// Runs a script there, in which the first failure is the end. Of what it starts, nothing outlives it.
    pub fn run(&self, label: &str, script: &str) -> Result<()> {
        fs::write(self.folder.join("check"), script).context("cannot write a script")?;
        step::run(label, self.command(&["bash", "-euo", "pipefail", "/check"]))
    }

    /// A command among the project's files.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = enclosed();
        command.arg(format!("--mount-proc={}/proc", self.folder.display()));
        command.args(["nice", "chroot"]).arg(&self.folder);
        command.args([
            "env",
            "--ignore-environment",
            &format!("--chdir={PROJECT}"),
            "HOME=/root",
            "LC_ALL=C.UTF-8",
        ]);
        command.arg("PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(proxies());
        command.arg(format!("COMPILER={}", self.system.compiler()));
        command.args(words);
        command
    }

    fn bootstrap(&self, keyring: &Path) -> Command {
        let mut command = enclosed();
        command.args(["mmdebstrap", "--mode=root", "--variant=apt", "--skip=cleanup/apt/lists"]);
        command.args(["--include=ca-certificates,gcc,libc6-dev", "--keyring"]).arg(keyring);
        command.arg(self.system.suite()).arg(&self.folder).args(self.system.sources());
        command
    }

    fn trust_as_this_machine(&self) -> Result<()> {
        if !Path::new(CERTIFICATES).is_dir() {
            return Ok(());
        }
        let folder = self.folder.join(CERTIFICATES.trim_start_matches('/'));
        copy(Command::new("tar").args(["-C", CERTIFICATES, "-c", "."]), &folder)?;
        let mut update = Command::new("chroot");
        update.arg(&self.folder).args([
            "env",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "update-ca-certificates",
        ]);
        output(privilege::as_root(update)?).map(drop)
    }

    /// rustup, and its stable toolchain without the documentation.
    fn copy_toolchain(&self) -> Result<()> {
        let rustup =
            workspace::find("rustup").context("there is no rustup, whose toolchain is to be copied")?;
        let programs = self.folder.join(CARGO).join("bin");
        fs::create_dir_all(&programs).context("cannot make a folder for rustup")?;
        fs::copy(&rustup, programs.join("rustup")).context("cannot copy rustup")?;
        for proxy in PROXIES {
            symlink("rustup", programs.join(proxy)).context("cannot link rustup")?;
        }
        let mut sysroot = Command::new("rustup");
        sysroot.args(["run", "stable", "rustc", "--print", "sysroot"]);
        let sysroot = PathBuf::from(output(sysroot)?.trim());
        let name = sysroot.file_name().context("rustup's stable toolchain has no name")?;
        let copied = self.folder.join(RUSTUP).join("toolchains").join(name);
        copy(Command::new("tar").arg("-C").arg(&sysroot).args(["--exclude=share/doc", "-c", "."]), &copied)?;
        output(self.command(&["rustup", "default", &name.to_string_lossy()])).map(drop)
    }

    /// What a clone of the repository holds.
    fn copy_project(&self) -> Result<()> {
        let mut archive = Command::new("git");
        archive.arg("-C").arg(workspace::root()).args(["archive", "HEAD"]);
        copy(&mut archive, &self.folder.join(PROJECT.trim_start_matches('/')))
    }

    /// What has come until now, and is kept there.
    pub fn downloads(&self) -> Result<Downloads> {
        let size = |folder: &str| size(&self.folder.join(folder));
        Ok(Downloads {
            packages: size("var/cache/apt/archives")?,
            crates: size("root/.cargo/registry/cache")?,
        })
    }
}

/// The beginning of a command with mounts and processes of its own, which end with it and with this thread.
fn enclosed() -> Command {
    let mut command = Command::new("setpriv");
    command.env("PATH", workspace::search_path());
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    command
}

/// Unpacks what a command packs.
fn copy(pack: &mut Command, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let shown = step::shown(pack);
    let mut packing = pack.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let mut unpack = Command::new("tar");
    unpack.arg("-x").arg("-C").arg(folder);
    if let Some(packed) = packing.stdout.take() {
        unpack.stdin(packed);
    }
    let unpacked = output(unpack);
    let status = packing.wait().with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    unpacked.map(drop)
}

/// This machine's variables for the way to the network.
fn proxies() -> Vec<String> {
    const NAMES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    let names = NAMES.into_iter().flat_map(|name| [name.to_owned(), name.to_uppercase()]);
    names.filter_map(|name| env::var(&name).ok().map(|value| format!("{name}={value}"))).collect()
}

/// The sum of the files in a folder, which need not be there.
fn size(folder: &Path) -> Result<u64> {
    if !folder.is_dir() {
        return Ok(0);
    }
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.context("cannot read a folder")?;
        let data = entry.metadata().context("cannot read a file's size")?;
        bytes += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}

impl Display for Downloads {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mega = |bytes: u64| bytes.div_ceil(1_000_000);
        let (packages, crates) = (mega(self.packages), mega(self.crates));
        write!(formatter, "{packages} MB of packages, {crates} MB of crates")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};

    use super::{copy, size};

    #[test]
    fn files_are_added_up_in_folders_of_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a"), "123").unwrap();
        fs::write(folder.path().join("inner/b"), "45").unwrap();
        assert_eq!(size(folder.path()).unwrap(), 5);
        assert_eq!(size(&folder.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_packed_is_not_taken_for_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), "text").unwrap();
        copy(Command::new("tar").arg("-C").arg(from.path()).args(["-c", "."]), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("a")).unwrap(), "text");
        let mut none = Command::new("tar");
        none.args(["-C", "/no/such/folder", "-c", "."]).stderr(Stdio::null());
        assert!(copy(&mut none, to.path()).is_err());
    }
}
