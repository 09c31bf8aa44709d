//! Two hosts with a `flanneld` each, and no bridge yet: whoever runs containers makes it.

use anyhow::Result;

use super::dockerd::Dockerd;
use super::options::docker_options;
use crate::cluster::Turn;
use crate::daemon::{Daemon, Settings};
use crate::etcd::{Etcd, PREFIX};
use crate::network::{Host, Network, SubnetFile};

/// A host with a daemon. Fields are dropped in this order.
#[derive(Debug)]
pub struct SiteHost {
    /// The daemon.
    pub daemon: Daemon,
    /// Its subnet file.
    pub file: SubnetFile,
    /// The host.
    pub host: Host,
}

/// The hosts. Fields are dropped in this order: what runs containers is to be dropped before.
#[derive(Debug)]
pub struct Site {
    /// The hosts, joined by a cable.
    pub hosts: [SiteHost; 2],
    _etcd: Etcd,
    _network: Network,
    _turn: Turn,
}

impl Site {
    /// Starts a daemon with these flags on each, and returns when both are ready.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(backend: &str, flags: &[String]) -> Result<Self> {
        let turn = Turn::take();
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        let hosts = SiteHost::pair(Host::pair(&network, 1)?, &etcd, PREFIX, backend, flags)?;
        Ok(Self { hosts, _etcd: etcd, _network: network, _turn: turn })
    }

    /// Starts dockerd on each, with what the shipped script makes of the subnet file and with these options.
    ///
    /// # Errors
    /// The script fails, or dockerd does not start.
    pub fn dockers(&self, options: &[&str]) -> Result<[Dockerd; 2]> {
        let [one, other] = &self.hosts;
        Ok([one.docker(options)?, other.docker(options)?])
    }
}

impl SiteHost {
    /// Starts a daemon with these flags on each of two hosts, and returns when both are ready.
    ///
    /// # Errors
    /// Something does not start.
    pub fn pair(
        hosts: [Host; 2],
        etcd: &Etcd,
        prefix: &str,
        backend: &str,
        flags: &[String],
    ) -> Result<[Self; 2]> {
        etcd.put(
            &format!("{prefix}/config"),
            &format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#),
        )?;
        let settings = Settings { endpoint: etcd.url(), prefix: prefix.to_owned(), flags: flags.to_owned() };
        let start = |host: Host| anyhow::Ok((Daemon::start(&host, settings.clone())?, host));
        let [one, other] = hosts;
        let (one, other) = (start(one)?, start(other)?);
        let ready = |(mut daemon, host): (Daemon, Host)| {
            let file = daemon.wait_ready()?;
            anyhow::Ok(Self { daemon, file, host })
        };
        Ok([ready(one)?, ready(other)?])
    }

    /// Starts dockerd here.
    ///
    /// # Errors
    /// The script fails, or dockerd does not start.
    pub fn docker(&self, options: &[&str]) -> Result<Dockerd> {
        let made = docker_options(self.host.namespace.command("sh")?, &self.daemon.subnet_file())?;
        let options = made.into_iter().chain(options.iter().map(|option| (*option).to_owned()));
        Dockerd::start(&self.host, options.collect())
    }
}
