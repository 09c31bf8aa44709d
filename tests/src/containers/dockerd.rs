//! dockerd on a host, with its own containerd, data and socket.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::output;
use super::engine::Engine;
use super::machine::{Machine, children};
use crate::network::Host;
use crate::process::Process;
use crate::wait;

/// Names a directory whose `dockerd` and `containerd` are used instead of the installed ones.
const DIRECTORY_VARIABLE: &str = "FLANNEL_DOCKER_BIN";
/// The command line, by its place: a program of that name elsewhere may be something else.
const DOCKER: &str = "/usr/bin/docker";
/// Its file of settings, which has none: those of this machine are for another one.
const CONFIG: &str = "daemon.json";
/// How long it may take to start, on a machine that does much else.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END: Duration = Duration::from_secs(30);

/// A dockerd. Containers outlive it (live-restore), and end with its machine when it is dropped.
#[derive(Debug)]
pub struct Dockerd {
    process: Option<Process>,
    machine: Machine,
    options: Vec<String>,
    network: Option<&'static str>,
}

impl Dockerd {
    /// Starts it with these options besides its own places, and makes the image.
    ///
    /// # Errors
    /// There is no dockerd, or it does not start; then with the end of its log.
    pub fn start(host: &Host, options: Vec<String>) -> Result<Self> {
        Self::start_with(host, options, None)
    }

    /// Starts one whose containers have the host's own network.
    ///
    /// # Errors
    /// There is no dockerd, or it does not start; then with the end of its log.
    pub fn without_network(host: &Host) -> Result<Self> {
        Self::start_with(host, vec!["--bridge=none".to_owned()], Some("host"))
    }

    fn start_with(host: &Host, options: Vec<String>, network: Option<&'static str>) -> Result<Self> {
        let machine = Machine::start(host, "docker")?;
        std::fs::write(machine.directory().join(CONFIG), "{}")?;
        let mut dockerd = Self { process: None, machine, options, network };
        dockerd.restart()?;
        dockerd.import()?;
        Ok(dockerd)
    }

    /// Starts it again, where it was ended.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.machine.command("dockerd");
        choose(&mut command)?;
        let place = |name: &str| self.machine.directory().join(name).display().to_string();
        command.args(["--data-root", &place("data"), "--exec-root", &place("exec")]);
        command.args(["--pidfile", &place("dockerd.pid")]);
        command.args(["--host", &self.socket(), "--config-file", &place(CONFIG)]);
        // A manager of services is not asked for control groups.
        command.args(["--live-restore", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.args(&self.options);
        let log = self.machine.directory().join("dockerd.log");
        let name = format!("dockerd on {}", self.machine.host().name);
        let mut process = Process::spawn(&name, command, &log)?;
        let started = wait::until(&format!("{name} to answer"), START, || {
            if let Err(ended) = process.check_running() {
                return Ok(Err(ended));
            }
            self.call(&["version"]).map(|_| Ok(()))
        });
        started.and_then(|outcome| outcome).with_context(|| {
            let log = process.log_tail(20);
            format!("`cargo xtask setup` installs dockerd; its log ends with:\n{log}")
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks it to end, and waits until it has. Containers go on.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn terminate(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it at once. Containers go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("dockerd does not run")?;
        // What was started is `nsenter`, which waits for it.
        let pid = *children(process.pid()).first().context("dockerd has ended by itself")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        process.wait_end(END)?;
        Ok(())
    }

    /// The version of the one that would be started, such as 20.10.24.
    ///
    /// # Errors
    /// There is none.
    pub fn version() -> Result<String> {
        let mut command = Command::new("dockerd");
        choose(&mut command)?;
        let told = output(command.arg("--version")).context("`cargo xtask setup` installs dockerd")?;
        let version = told.strip_prefix("Docker version ").and_then(|rest| rest.split([',', '+']).next());
        Ok(version.with_context(|| format!("no version: {told}"))?.to_owned())
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.machine.directory().join("docker.sock").display())
    }
}

/// Has the programs looked for where the environment says.
fn choose(command: &mut Command) -> Result<()> {
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
        let directories = [PathBuf::from(directory)].into_iter();
        let others = env::var_os("PATH").unwrap_or_default();
        command.env("PATH", env::join_paths(directories.chain(env::split_paths(&others)))?);
    }
    Ok(())
}

impl Engine for Dockerd {
    fn command(&self) -> Command {
        let mut command = Command::new(DOCKER);
        command.env("DOCKER_HOST", self.socket()).env("DOCKER_CONFIG", self.machine.directory());
        command
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn network(&self) -> Option<&str> {
        self.network
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Its end would end nothing else, and the machine's ends it, too.
        if let Err(error) =
            self.kill().or_else(|error| if self.process.is_none() { Ok(()) } else { Err(error) })
        {
            eprintln!("left behind: {error:#}");
        }
    }
}
