//! What a host has besides its network: process ids, mounts and a `/run` of its own. Everything that is started there
//! ends with it, also what has left its parent, as containers do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::claim::{self, Claim, Thing};
use crate::network::Host;
use crate::process::Process;
use crate::wait;

/// What the first process does: it prepares the mounts, says so in a file of the directory `$0`, and takes in orphans
/// until it is killed. crun refuses a machine that has control groups of both versions.
const INIT: &str = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && \
                    { ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; } && \
                    echo >\"$0/mounted\" && while sleep 1; do :; done";
/// How long that may take, and how long the end of all that runs there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host's processes and mounts. Dropped, it ends with all that runs there.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    init: u32,
    host: Host,
    directory: PathBuf,
    cgroup: String,
    _claims: [Claim; 2],
}

impl Machine {
    /// Starts one on a host; `name` must be unique there.
    ///
    /// # Errors
    /// The kernel refuses, or `unshare` of util-linux is missing.
    pub fn start(host: &Host, name: &str) -> Result<Self> {
        let label = format!("{}-{name}", host.label());
        let (directory, claim) = claim::directory(&label)?;
        let cgroup = claim::name(&label);
        let groups = Claim::new(Thing::Cgroup(cgroup.clone()));
        let mut command = host.namespace.command("unshare")?;
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--ipc", "--uts", "sh", "-c", INIT]);
        command.arg(&directory);
        let mut process =
            Process::spawn(&format!("{name} on {}", host.name), command, &directory.join("log"))?;
        let init = wait::until("the mounts of a machine", PATIENCE, || {
            process.check_running()?;
            ensure!(directory.join("mounted").exists(), "there are none");
            children(process.pid()).first().copied().context("it has no process")
        })?;
        Ok(Self { process, init, host: host.clone(), directory, cgroup, _claims: [groups, claim] })
    }

    /// A program that will run there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--net", "--ipc", "--uts"]);
        command.arg("--").arg(program);
        command
    }

    /// The id that a process there has for this process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn pid(&self, inside: u32) -> Result<u32> {
        let is_it = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            // From this process's namespace inwards.
            ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some(&inside.to_string())
        };
        let found = descendants(self.init).into_iter().find(is_it);
        found.with_context(|| format!("{} has no process {inside}", self.host.name))
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// A directory of its own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The control group for its containers, in every hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `unshare` ends behind it, and it ends behind all the others.
        if let Ok(pid) = i32::try_from(self.init) {
            // One that has ended already has ended them, too.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if let Err(error) = self.process.wait_end(PATIENCE) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// The processes that a process has started.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    threads.flat_map(|thread| numbers(&of(thread))).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A process and all that come from it.
fn descendants(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(descendants).chain([pid]).collect()
}
