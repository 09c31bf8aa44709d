//! One server of an etcd.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::process::Process;

/// A server with its data.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) namespace: Option<Namespace>,
    pub(super) client: SocketAddrV4,
    pub(super) peer: SocketAddrV4,
    pub(super) directory: PathBuf,
    pub(super) process: Option<Process>,
    pub(super) is_frozen: AtomicBool,
}

impl Member {
    pub(super) fn new(
        name: &str,
        namespace: Option<Namespace>,
        client: SocketAddrV4,
        peer: SocketAddrV4,
        directory: PathBuf,
    ) -> Self {
        let is_frozen = AtomicBool::new(false);
        Self { name: name.to_owned(), namespace, client, peer, directory, process: None, is_frozen }
    }

    pub(super) fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join(format!("{}-data", self.name))
    }

    /// Starts it; it will answer later.
    pub(super) fn start(&mut self, client_url: &str, cluster: &str, flags: &[String]) -> Result<()> {
        if self.process.is_some() {
            bail!("etcd {} runs already", self.name);
        }
        let peer = self.peer_url();
        let mut command = self.command("etcd")?;
        command.args(["--name", &self.name]).arg("--data-dir").arg(self.data());
        command.args(["--listen-client-urls", client_url, "--advertise-client-urls", client_url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", cluster]);
        command.args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]);
        command.args(flags);
        let log = self.directory.join(format!("{}-log", self.name));
        self.process = Some(Process::spawn(&format!("etcd {}", self.name), command, &log)?);
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.is_frozen.store(false, Ordering::Relaxed);
        self.process.take().context("etcd does not run")?.kill()
    }

    pub(super) fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.process.as_ref().context("etcd does not run")?.signal(signal)?;
        self.is_frozen.store(frozen, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is any use in asking it.
    pub(super) fn is_awake(&self) -> bool {
        self.process.is_some() && !self.is_frozen.load(Ordering::Relaxed)
    }

    pub(super) fn command(&self, program: &str) -> Result<Command> {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Ok(Command::new(program)),
        }
    }
}
