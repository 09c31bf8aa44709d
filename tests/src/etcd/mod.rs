//! A private etcd.

mod access;
mod entry;
mod member;
mod plan;
mod proxy;
mod tls;

use std::fs;
use std::io::{Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use access::Access;
pub use access::{PASSWORD, USER};
pub use entry::Entry;
use entry::entries;
use member::Member;
pub use plan::{Encryption, EtcdPlan};
pub use proxy::{Manner, Proxy};
use tls::Tls;

use crate::claim::{self, Claim};
use crate::namespace::Namespace;
use crate::network::{ETCD_ADDRESS, Host, HostOptions, Network, Place};
use crate::wait;

/// Stock flannel's default prefix in etcd.
pub const PREFIX: &str = "/coreos.com/network";

/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(20);
/// How long etcdctl may take.
const CTL: Duration = Duration::from_secs(5);
/// Where the proxy listens, beside etcd.
const PROXY_PORT: u16 = 2378;

/// An etcd with its data in a temporary directory.
#[derive(Debug)]
pub struct Etcd {
    proxy: Option<Proxy>,
    members: Vec<Member>,
    tls: Option<Tls>,
    access: Option<Access>,
    flags: Vec<String>,
    directory: PathBuf,
    /// What the members of a cluster run on.
    _hosts: Vec<Host>,
    _claim: Claim,
}

impl Etcd {
    /// Starts etcd on the near segment of a network.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_network(network: &Network) -> Result<Self> {
        Self::as_planned(network, &EtcdPlan::default())
    }

    /// Starts an etcd on the near segment of a network. A single member is where the switch is; those of a cluster are
    /// on the hosts h21, h22 and h23.
    ///
    /// # Errors
    /// It does not start.
    pub fn as_planned(network: &Network, plan: &EtcdPlan) -> Result<Self> {
        let (directory, claim) = claim::directory(&format!("{}-etcd", network.number()))?;
        let numbers = if plan.is_cluster { 21..24 } else { 0..0 };
        let host = |number| Host::new(network, Place::Near, number, HostOptions::default());
        let hosts = numbers.map(host).collect::<Result<Vec<Host>>>()?;
        let member = |name: &str, namespace: &Namespace, address| {
            let address = |port| SocketAddrV4::new(address, port);
            Member::new(name, Some(namespace.clone()), address(2379), address(2380), directory.clone())
        };
        let mut members: Vec<Member> =
            hosts.iter().map(|host| member(&host.name, &host.namespace, host.address)).collect();
        if members.is_empty() {
            members.push(member("default", network.lan(), ETCD_ADDRESS));
        }
        let tls = Tls::issue(plan.encryption, &directory, ETCD_ADDRESS)?;
        let flags = plan.flags.clone();
        let mut etcd =
            Self { proxy: None, members, tls, access: None, flags, directory, _hosts: hosts, _claim: claim };
        etcd.restart()?;
        if plan.is_guarded {
            etcd.access = Some(Access::set_up(&etcd)?);
        }
        if plan.is_proxied {
            let address = SocketAddrV4::new(ETCD_ADDRESS, PROXY_PORT);
            let target = SocketAddrV4::new(ETCD_ADDRESS, 2379);
            etcd.proxy = Some(Proxy::start(network.lan(), address, target)?);
        }
        Ok(etcd)
    }

    /// Starts etcd on free ports of the loopback interface. `label` must be unique in this process.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_loopback(label: &str) -> Result<Self> {
        Self::on(label, free_ports()?)
    }

    /// Starts etcd at an address of this machine. `label` must be unique in this process.
    ///
    /// # Errors
    /// It does not start.
    pub fn at(label: &str, address: Ipv4Addr) -> Result<Self> {
        Self::on(label, [2379, 2380].map(|port| SocketAddrV4::new(address, port)))
    }

    fn on(label: &str, [client, peer]: [SocketAddrV4; 2]) -> Result<Self> {
        claim::prepare()?;
        let (directory, claim) = claim::directory(&format!("{label}-etcd"))?;
        let members = vec![Member::new("default", None, client, peer, directory.clone())];
        let (proxy, tls, access, flags) = (None, None, None, Vec::new());
        let mut etcd =
            Self { proxy, members, tls, access, flags, directory, _hosts: Vec::new(), _claim: claim };
        etcd.restart()?;
        Ok(etcd)
    }

    /// Starts every member that does not run, with the data it had.
    ///
    /// # Errors
    /// All run, or one does not start.
    pub fn restart(&mut self) -> Result<()> {
        if self.members.iter().all(|member| member.process.is_some()) {
            bail!("etcd runs already");
        }
        let cluster: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect();
        let mut flags = self.flags.clone();
        flags.extend(self.tls.iter().flat_map(Tls::server_flags));
        let urls: Vec<String> = self.members.iter().map(|member| self.url_of(member)).collect();
        for (member, url) in self.members.iter_mut().zip(urls) {
            if member.process.is_none() {
                member.start(&url, &cluster.join(","), &flags)?;
            }
        }
        wait::until("etcd to answer", START, || {
            for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
                if let Err(ended) = process.check_running() {
                    return Ok(Err(ended));
                }
            }
            self.ctl(&["endpoint", "health"]).map(Ok)
        })??;
        Ok(())
    }

    /// Where clients find it: the URLs of all members with commas between them, or that of the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = self.scheme();
        match self.proxy {
            Some(_) => format!("{scheme}://{ETCD_ADDRESS}:{PROXY_PORT}"),
            None => self.members.iter().map(|member| self.url_of(member)).collect::<Vec<_>>().join(","),
        }
    }

    fn url_of(&self, member: &Member) -> String {
        format!("{}://{}", self.scheme(), member.client)
    }

    const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What else a daemon needs to log in.
    #[must_use]
    pub fn daemon_flags(&self) -> Vec<String> {
        let tls = |tls: &Tls| tls.client_flags(["etcd-cafile", "etcd-certfile", "etcd-keyfile"]);
        let tls = self.tls.iter().flat_map(tls);
        tls.chain(self.access.iter().flat_map(Access::daemon_flags)).collect()
    }

    /// What stands before it.
    ///
    /// # Errors
    /// Nothing does.
    pub fn proxy(&self) -> Result<&Proxy> {
        self.proxy.as_ref().context("etcd has no proxy")
    }

    /// Has another authority issue every certificate again; etcd reads them at its next start.
    ///
    /// # Errors
    /// It speaks plaintext.
    pub fn renew_certificates(&self) -> Result<()> {
        self.tls.as_ref().context("etcd speaks plaintext")?.renew()
    }

    /// The file with the user's password.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        access::password_file(&self.directory)
    }

    /// Changes the user's password in etcd, and not in the file.
    ///
    /// # Errors
    /// etcd cannot be reached, or lets everybody in.
    pub fn change_password(&self, password: &str) -> Result<()> {
        let mut file = tempfile::tempfile()?;
        writeln!(file, "{password}")?;
        file.rewind()?;
        let arguments = ["user", "passwd", USER, "--interactive=false"];
        Self::run(self.etcdctl()?.args(arguments).stdin(file)).map(drop)
    }

    /// Its revision.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn revision(&self) -> Result<i64> {
        let answer: Value = serde_json::from_str(&self.ctl(&["get", "-w", "json", "--", "/"])?)?;
        answer["header"]["revision"].as_i64().with_context(|| format!("no revision in {answer}"))
    }

    /// Saves what it holds, for [`Etcd::restore`].
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn save(&self) -> Result<()> {
        self.ctl(&["snapshot", "save", &path_text(&self.saved())?]).map(drop)
    }

    /// Ends the only member, and starts it with what was saved: another cluster, as etcd sees it.
    ///
    /// # Errors
    /// Nothing was saved.
    pub fn restore(&mut self) -> Result<()> {
        self.kill()?;
        let member = self.members.first().context("there is no member")?;
        fs::remove_dir_all(member.data())?;
        let mut command = member.command("etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(self.saved());
        command.args(["--name", &member.name]).arg("--data-dir").arg(member.data());
        command.args(["--initial-cluster", &format!("{}={}", member.name, member.peer_url())]);
        command.args(["--initial-advertise-peer-urls", &member.peer_url()]);
        Self::run(&mut command)?;
        self.restart()
    }

    fn saved(&self) -> PathBuf {
        self.directory.join("saved")
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

    /// Ends every member at once; the data stays.
    ///
    /// # Errors
    /// One does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::kill)
    }

    /// Ends one member at once.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_member(&mut self, number: usize) -> Result<()> {
        self.members.get_mut(number).context("there is no such member")?.kill()
    }

    /// Stops one member, or lets it continue.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze_member(&self, number: usize, frozen: bool) -> Result<()> {
        self.members.get(number).context("there is no such member")?.freeze(frozen)
    }

    /// The number of the member that leads.
    ///
    /// # Errors
    /// None does, or none answers.
    pub fn leader(&self) -> Result<usize> {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])?)?;
        let leads = |status: &&Value| {
            let status = &status["Status"];
            status["leader"]
                .as_u64()
                .is_some_and(|leader| Some(leader) == status["header"]["member_id"].as_u64())
        };
        let leader = status.as_array().into_iter().flatten().find(leads).context("nobody leads")?;
        let is_it = |member: &Member| leader["Endpoint"].as_str() == Some(&self.url_of(member));
        self.members.iter().position(is_it).with_context(|| format!("whose endpoint is that? {leader}"))
    }

    /// Has that member lead.
    ///
    /// # Errors
    /// Nobody leads now, or it cannot.
    pub fn make_leader(&self, number: usize) -> Result<()> {
        let leader = self.leader()?;
        if leader == number {
            return Ok(());
        }
        let url = |number: usize| self.members.get(number).map(|member| self.url_of(member));
        let (from, to) = url(leader).zip(url(number)).context("there is no such member")?;
        let status: Value =
            serde_json::from_str(&self.ctl(&["--endpoints", &to, "endpoint", "status", "-w", "json"])?)?;
        let id = status[0]["Status"]["header"]["member_id"].as_u64().context("it does not show its id")?;
        self.ctl(&["--endpoints", &from, "move-leader", &format!("{id:x}")]).map(drop)
    }

    /// Where a member runs.
    ///
    /// # Errors
    /// It has no namespace of its own.
    pub fn namespace_of(&self, number: usize) -> Result<&Namespace> {
        self.members.get(number).and_then(|member| member.namespace.as_ref()).context("it has no namespace")
    }

    /// Runs `etcdctl` against the members that can answer, and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        Self::run(self.etcdctl()?.args(arguments))
    }

    fn etcdctl(&self) -> Result<Command> {
        let member = self.members.first().context("there is no member")?;
        let awake: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.is_awake())
            .map(|member| self.url_of(member))
            .collect();
        let mut command = member.command("etcdctl")?;
        let limit = format!("{}s", wait::stretched(CTL).as_secs());
        command.env("ETCDCTL_API", "3").args(["--endpoints", &awake.join(","), "--command-timeout", &limit]);
        command.args(self.tls.iter().flat_map(|tls| tls.client_flags(["cacert", "cert", "key"])));
        if self.access.is_some() {
            command.args(Access::ctl_flags());
        }
        Ok(command)
    }

    fn run(command: &mut Command) -> Result<String> {
        let output = command.output().context("cannot run etcdctl")?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn path_text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is no text")
}

/// Two ports nobody listens on. They may be taken before they are used; then etcd says so.
fn free_ports() -> Result<[SocketAddrV4; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both at a time, or the second might be the first again.
    let listeners = [bind()?, bind()?];
    let address = |listener: &TcpListener| {
        anyhow::Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr()?.port()))
    };
    Ok([address(&listeners[0])?, address(&listeners[1])?])
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
