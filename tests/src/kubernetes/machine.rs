//! A host as a whole machine: with processes, mounts and cgroups of its own, as kubelet and containerd expect.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::claim::{self, Claim, Thing};
use crate::namespace::Namespace;
use crate::network::Host;
use crate::process::Process;
use crate::wait;

const SCRIPT: &str = include_str!("machine.sh");
/// How long its start may take.
const START: Duration = Duration::from_secs(30);

/// A machine that runs. Dropped, everything in it ends.
#[derive(Debug)]
pub struct Machine {
    /// Its network.
    pub host: Host,
    process: Process,
    first: Pid,
    directory: PathBuf,
    _claims: [Claim; 2],
}

impl Machine {
    /// Makes a machine of a host.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn start(host: Host) -> Result<Self> {
        let label = format!("{}-machine", host.label());
        let (directory, claim) = claim::directory(&label)?;
        let cgroup = claim::name(&label);
        let cgroups = Claim::new(Thing::Cgroup(cgroup.clone()));
        fs::write(directory.join("machine.sh"), SCRIPT)?;
        let mut command = host.namespace.command("sh")?;
        command.arg(directory.join("machine.sh")).arg(&directory).args([&cgroup, &host.name]);
        let mut process = Process::spawn("the machine", command, &directory.join("machine.log"))?;
        let ready = directory.join("ready");
        wait::until("the machine to be ready", START, || match process.check_running() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => ready.is_file().then(|| Ok(())).context("it is not"),
        })??;
        let first = child_of(process.pid())?;
        // In this order: directories can go once nothing writes there.
        Ok(Self { host, process, first, directory, _claims: [cgroups, claim] })
    }

    /// A program that will run in it, and end with its parent.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs a program with arguments divided by spaces, and returns what it prints.
    ///
    /// # Errors
    /// It fails; then with what it printed to standard error.
    pub fn run(&self, program: &str, arguments: &str) -> Result<String> {
        let output = self.command(program).args(arguments.split_whitespace()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {arguments} failed on {}: {}", self.host.name, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program that runs beside the others, its log in the machine's directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Process> {
        let program = program.as_ref();
        let name = program.file_name().context("no program")?.to_string_lossy().into_owned();
        let mut command = self.command(program);
        command.args(arguments);
        let log = self.directory.join(format!("{name}.log"));
        Process::spawn(&format!("{name} on {}", self.host.name), command, &log)
    }

    /// A path of the machine as this process sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(path.trim_start_matches('/'))
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The network namespace of the pod with this address.
    ///
    /// # Errors
    /// There is none.
    pub fn pod(&self, address: Ipv4Addr) -> Result<Namespace> {
        let line = format!("inet {address}/");
        for entry in fs::read_dir(self.path("/run/netns"))?.flatten() {
            let label = format!("{}-pod-{address}", self.host.label());
            let namespace = Namespace::of_file(&label, &entry.path())?;
            if namespace.ip("-4 address show")?.contains(&line) {
                return Ok(namespace);
            }
        }
        bail!("no pod on {} has the address {address}", self.host.name)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel ends all other processes of a machine with its first one.
        let _ = kill(self.first, Signal::SIGKILL);
        drop(self.process.wait_end(Duration::from_secs(10)));
    }
}

/// The process that `unshare` has started and waits for.
fn child_of(pid: u32) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.split_whitespace().next().context("the machine has no process")?;
    Ok(Pid::from_raw(child.parse()?))
}
