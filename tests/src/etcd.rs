//! A private etcd.

use std::io::{Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::claim::{self, Claim};
use crate::namespace::Namespace;
use crate::network::{ETCD_ADDRESS, Network};
use crate::process::Process;
use crate::wait;

/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(20);

/// An etcd of one member with its data in a temporary directory.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    namespace: Option<Namespace>,
    client: SocketAddrV4,
    peer: SocketAddrV4,
    directory: PathBuf,
    _claim: Claim,
}

/// A key and its value, as etcd tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The etcd lease it hangs on; zero for none.
    pub lease: i64,
    /// Revision of the last write.
    pub mod_revision: i64,
}

impl Etcd {
    /// Starts etcd on the near segment of a network.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_network(network: &Network) -> Result<Self> {
        let address = |port| SocketAddrV4::new(ETCD_ADDRESS, port);
        let label = format!("{}-etcd", network.number());
        Self::start(&label, Some(network.lan().clone()), address(2379), address(2380))
    }

    /// Starts etcd on free ports of the loopback interface. `label` must be unique in this process.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_loopback(label: &str) -> Result<Self> {
        claim::prepare()?;
        Self::start(&format!("{label}-etcd"), None, free_port()?, free_port()?)
    }

    fn start(
        label: &str,
        namespace: Option<Namespace>,
        client: SocketAddrV4,
        peer: SocketAddrV4,
    ) -> Result<Self> {
        let (directory, claim) = claim::directory(label)?;
        let mut etcd = Self { process: None, namespace, client, peer, directory, _claim: claim };
        etcd.restart()?;
        Ok(etcd)
    }

    /// Starts it again with the data it had.
    ///
    /// # Errors
    /// It runs, or does not start.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("etcd runs already");
        }
        let (client, peer) = (self.url(), format!("http://{}", self.peer));
        let mut command = self.command("etcd")?;
        command.arg("--data-dir").arg(self.directory.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]);
        let mut process = Process::spawn("etcd", command, &self.directory.join("log"))?;
        wait::until("etcd to answer", START, || {
            if let Err(ended) = process.check_running() {
                return Ok(Err(ended));
            }
            self.ctl(&["endpoint", "health"]).map(Ok)
        })??;
        self.process = Some(process);
        Ok(())
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Writes a key.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", "--", key, value]).map(drop)
    }

    /// Writes a value that need not be text, nor short.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn put_bytes(&self, key: &str, value: &[u8]) -> Result<()> {
        let mut file = tempfile::tempfile()?;
        file.write_all(value)?;
        file.rewind()?;
        Self::run(self.etcdctl()?.args(["put", "--", key]).stdin(file)).map(drop)
    }

    /// Writes a key that goes after `seconds`, and returns the etcd lease it hangs on.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn put_for(&self, seconds: u32, key: &str, value: &str) -> Result<i64> {
        let granted: Value =
            serde_json::from_str(&self.ctl(&["lease", "grant", &seconds.to_string(), "-w", "json"])?)?;
        let id = granted["ID"].as_i64().with_context(|| format!("no lease in {granted}"))?;
        self.ctl(&["put", &format!("--lease={id:x}"), "--", key, value])?;
        Ok(id)
    }

    /// Deletes a key, whether there or not.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.ctl(&["del", "--", key]).map(drop)
    }

    /// The entry at a key.
    ///
    /// # Errors
    /// There is none, or etcd cannot be reached.
    pub fn get(&self, key: &str) -> Result<Entry> {
        let entry = entries(&self.ctl(&["get", "-w", "json", "--", key])?)?.pop();
        entry.with_context(|| format!("there is no key {key}"))
    }

    /// Everything whose key begins with `prefix`, in the order of the keys.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        entries(&self.ctl(&["get", "--prefix", "-w", "json", "--", prefix])?)
    }

    /// Ends it at once; its data stays.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("etcd does not run")?.kill()
    }

    /// Stops it in its tracks, or lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.process.as_ref().context("etcd does not run")?.signal(signal)
    }

    /// Runs `etcdctl`, and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        Self::run(self.etcdctl()?.args(arguments))
    }

    fn etcdctl(&self) -> Result<Command> {
        let mut command = self.command("etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url(), "--command-timeout", "5s"]);
        Ok(command)
    }

    fn run(command: &mut Command) -> Result<String> {
        let output = command.output().context("cannot run etcdctl")?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn command(&self, program: &str) -> Result<Command> {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Ok(Command::new(program)),
        }
    }
}

/// A port nobody listens on. It may be taken before it is used; then etcd says so.
fn free_port() -> Result<SocketAddrV4> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn entries(json: &str) -> Result<Vec<Entry>> {
    let answer: Value = serde_json::from_str(json)?;
    let entries = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|kv| entry(kv).with_context(|| format!("not understood: {kv}"))).collect()
}

fn entry(kv: &Value) -> Option<Entry> {
    Some(Entry {
        key: text(&kv["key"])?,
        value: text(&kv["value"]).unwrap_or_default(),
        lease: kv["lease"].as_i64().unwrap_or_default(),
        mod_revision: kv["mod_revision"].as_i64()?,
    })
}

/// A text in base64, the form of bytes in etcd's JSON.
fn text(value: &Value) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in value.as_str()?.bytes().take_while(|digit| *digit != b'=') {
        bits = bits << 6 | sextet(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf8(bytes).ok()
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::Etcd;

    #[test]
    fn keys_survive_the_death_of_the_server() {
        let mut etcd = Etcd::on_loopback("keys").unwrap();
        etcd.put("/x/config", r#"{"Network":"10.5.0.0/16"}"#).unwrap();
        let lease = etcd.put_for(60, "/x/subnets/10.5.1.0-24", "ünïcode -> {}").unwrap();
        etcd.kill().unwrap();
        assert!(etcd.get("/x/config").is_err());
        etcd.restart().unwrap();
        assert_eq!(etcd.get("/x/config").unwrap().value, r#"{"Network":"10.5.0.0/16"}"#);
        let entries = etcd.list("/x/subnets/").unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].value.as_str(), entries[0].lease), ("ünïcode -> {}", lease));
        etcd.delete("/x/config").unwrap();
        assert!(etcd.get("/x/config").unwrap_err().to_string().contains("no key"));
    }
}
