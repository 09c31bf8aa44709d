//! Hosts of a cloud: a network with etcd, and daemons that are started once there is a cloud around them.

use std::time::Duration;

use anyhow::{Result, ensure};
use flannel_control::socket::{self, ConditionState, Request, Status};
use flannel_model::condition::CLOUD_ROUTES;
use tokio::runtime::Builder;

use crate::cluster::Turn;
use crate::daemon::{Daemon, Settings};
use crate::etcd::{Etcd, PREFIX};
use crate::network::{Host, HostOptions, Network, Node, Place};
use crate::wait;

/// How long a daemon may take to see what has changed in the cloud, or to be through with what it failed at.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network with etcd, in which there are no hosts yet. It is dropped after them.
#[derive(Debug)]
pub struct Scene {
    /// The registry.
    pub etcd: Etcd,
    /// What joins the hosts.
    pub network: Network,
    flags: Vec<String>,
    _turn: Turn,
}

impl Scene {
    /// A network of 10.5.0.0/16 with that backend. Daemons look at the cloud every second.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(backend: &str) -> Result<Self> {
        Self::of(&format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#))
    }

    /// The same of that whole configuration.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn of(config: &str) -> Result<Self> {
        let turn = Turn::take();
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        etcd.put(&format!("{PREFIX}/config"), config)?;
        let flags = etcd.daemon_flags().into_iter().chain(["--cloud-resync=1".to_owned()]).collect();
        Ok(Self { etcd, network, flags, _turn: turn })
    }

    /// A host of that number.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn host(&self, number: u8, place: Place) -> Result<Host> {
        Host::new(&self.network, place, number, HostOptions::default())
    }

    /// Its daemon, with these variables in its environment; it need not become ready.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn daemon(&self, host: &Host, variables: &[(String, String)]) -> Result<Daemon> {
        let settings =
            Settings { endpoint: self.etcd.url(), prefix: PREFIX.to_owned(), flags: self.flags.clone() };
        Daemon::start_in(host, "flanneld", settings, variables.to_vec())
    }

    /// The same, once it is ready, and a pod beside it.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready.
    pub fn node(&self, host: &Host, variables: &[(String, String)]) -> Result<(Daemon, Node)> {
        let mut daemon = self.daemon(host, variables)?;
        let file = daemon.wait_ready()?;
        // Its service manager hears of readiness before the cloud has been asked.
        wait_in_step(&mut daemon)?;
        let node = Node::new(host.clone(), file, 1)?;
        Ok((daemon, node))
    }
}

/// Waits until the daemon's status has all of `words`.
///
/// # Errors
/// It has not, in time; or the daemon has ended.
pub fn wait_for_status(daemon: &mut Daemon, words: &[&str]) -> Result<()> {
    wait::until(&format!("{words:?} in the status"), PATIENCE, || {
        if let Err(ended) = daemon.check_running() {
            return Ok(Err(ended));
        }
        let status = status(daemon)?;
        for word in words {
            ensure!(status.contains(word), "no {word:?} in {status}");
        }
        Ok(Ok(()))
    })?
}

/// What the daemon says of itself.
///
/// # Errors
/// It does not answer.
pub fn ask(daemon: &Daemon) -> Result<Status> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(socket::ask(daemon.socket(), Request::Status))?.answer)
}

/// The same in JSON.
///
/// # Errors
/// It does not answer.
pub fn status(daemon: &Daemon) -> Result<String> {
    Ok(serde_json::to_string(&ask(daemon)?)?)
}

/// Waits until the cloud leads to the daemon's host, and the daemon sees all of it.
///
/// # Errors
/// It does not, in time.
pub fn wait_in_step(daemon: &mut Daemon) -> Result<()> {
    wait::until("the cloud to be in step", PATIENCE, || {
        if let Err(ended) = daemon.check_running() {
            return Ok(Err(ended));
        }
        let Status { conditions, limits, .. } = ask(daemon)?;
        let routes = conditions.iter().find(|condition| condition.name == CLOUD_ROUTES);
        ensure!(routes.is_some_and(|routes| routes.state == ConditionState::Met), "{conditions:?}");
        ensure!(!limits.iter().any(|limit| limit.contains("sight of the cloud")), "{limits:?}");
        Ok(Ok(()))
    })?
}
