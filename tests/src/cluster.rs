//! A whole network: hosts, etcd, a daemon on each host, pods behind them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::daemon::{Daemon, Settings};
use crate::etcd::{Etcd, EtcdPlan, PREFIX};
use crate::network::{Host, HostOptions, Network, Node, Place};
use crate::traffic::{Endpoint, Ping};
use crate::wait;

/// How long it may take until everybody reaches everybody.
const CONVERGENCE: Duration = Duration::from_secs(15);

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The network configuration, JSON.
    pub config: String,
    /// Where the hosts are, in the order of their numbers.
    pub places: Vec<Place>,
    /// Pods per host.
    pub pods: u8,
    /// What the hosts are like.
    pub host: HostOptions,
    /// Flags of every daemon.
    pub flags: Vec<String>,
    /// What etcd is like.
    pub etcd: EtcdPlan,
    /// Whether, in the end, every packet a program saw must have been counted once.
    pub is_counted: bool,
}

impl Plan {
    /// Two hosts on one segment with one pod each, and that backend.
    #[must_use]
    pub fn new(backend: &str) -> Self {
        Self {
            config: format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#),
            places: vec![Place::Near, Place::Near],
            pods: 1,
            host: HostOptions::default(),
            flags: Vec::new(),
            etcd: EtcdPlan::default(),
            is_counted: false,
        }
    }

    /// Also a host behind the router.
    #[must_use]
    pub fn with_far_host(mut self) -> Self {
        self.places.push(Place::Far);
        self
    }

    /// A flag for every daemon.
    #[must_use]
    pub fn with_flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }
}

/// A running network. Fields are dropped in this order: daemons before their hosts, etcd after all.
#[derive(Debug)]
pub struct Cluster {
    /// The hosts with daemons, in the order of their numbers.
    pub members: Vec<Member>,
    /// The registry.
    pub etcd: Etcd,
    /// What joins them.
    pub network: Network,
    _turn: Turn,
}

/// The right to have a network, while there is no other in this process. What is measured or lost in one network must
/// not be another's doing: which tests run side by side is decided by `cargo xtask test`, which has a process for each.
#[derive(Debug)]
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for it.
    #[must_use]
    pub fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self { _guard: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// A host with a daemon.
#[derive(Debug)]
pub struct Member {
    /// The daemon.
    pub daemon: Daemon,
    /// The host and its pods.
    pub node: Node,
}

impl Cluster {
    /// Starts everything, and returns when every daemon is ready and has its programs in all their places. Where this
    /// process has another cluster already, waits until that is gone.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(plan: &Plan) -> Result<Self> {
        let turn = Turn::take();
        let network = Network::new()?;
        let etcd = Etcd::as_planned(&network, &plan.etcd)?;
        etcd.put(&format!("{PREFIX}/config"), &plan.config)?;
        let mut cluster = Self { members: Vec::new(), etcd, network, _turn: turn };
        let settings = cluster.settings(&plan.flags);
        let mut started = Vec::new();
        for (number, place) in (1..).zip(&plan.places) {
            let host = Host::new(&cluster.network, *place, number, plan.host)?;
            let mut daemon = Daemon::start(&host, settings.clone())?;
            if plan.is_counted {
                daemon.count_runs()?;
            }
            started.push((daemon, host));
        }
        for (mut daemon, host) in started {
            let file = daemon.wait_ready()?;
            cluster.members.push(Member { daemon, node: Node::new(host, file, plan.pods)? });
        }
        cluster.members.iter().try_for_each(|member| member.daemon.wait_attached(&member.node))?;
        Ok(cluster)
    }

    /// The settings of a daemon of this network.
    #[must_use]
    pub fn settings(&self, flags: &[String]) -> Settings {
        let flags = self.etcd.daemon_flags().into_iter().chain(flags.iter().cloned()).collect();
        Settings { endpoint: self.etcd.url(), prefix: PREFIX.to_owned(), flags }
    }

    /// Fails unless the programs of every daemon have counted every packet they saw once.
    ///
    /// # Errors
    /// The counts differ.
    pub fn settle(&mut self) -> Result<()> {
        let settle = |member: &mut Member| {
            member.daemon.settle().with_context(|| format!("on {}", member.node.host.name))
        };
        self.members.iter_mut().try_for_each(settle)
    }

    /// The nodes of the members.
    pub fn nodes(&self) -> Vec<&Node> {
        self.members.iter().map(|member| &member.node).collect()
    }

    /// The first pod of a member.
    ///
    /// # Errors
    /// There is no such member.
    pub fn pod(&self, member: usize) -> Result<&Endpoint> {
        let member = self.members.get(member).with_context(|| format!("there is no member {member}"))?;
        member.node.endpoints().next().context("it has no pod")
    }
}

impl Drop for Cluster {
    #[expect(clippy::panic, reason = "the end of a test is a part of it")]
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        if let Err(error) = self.settle() {
            panic!("{error:#}");
        }
    }
}

/// An end and another.
pub type Pair = (Endpoint, Endpoint);

/// The ordered pairs of pods on different nodes.
#[must_use]
pub fn pod_pairs(nodes: &[&Node]) -> Vec<Pair> {
    pairs(nodes, |node| node.endpoints().cloned().collect())
}

/// The ordered pairs of pods and hosts on different nodes.
#[must_use]
pub fn all_pairs(nodes: &[&Node]) -> Vec<Pair> {
    pairs(nodes, |node| node.endpoints().cloned().chain([node.gateway()]).collect())
}

fn pairs(nodes: &[&Node], ends: impl Fn(&Node) -> Vec<Endpoint>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for from in nodes {
        for to in nodes.iter().filter(|to| to.host.name != from.host.name) {
            let targets = ends(to);
            pairs
                .extend(ends(from).iter().flat_map(|end| targets.iter().map(|to| (end.clone(), to.clone()))));
        }
    }
    pairs
}

/// Pings every pair until it answers, all at the same time.
///
/// # Errors
/// Some pairs do not answer in time; names each.
pub fn check_reached(pairs: &[Pair]) -> Result<()> {
    let reach = |from: &Endpoint, to: &Endpoint| {
        wait::until(&format!("{} to reach {}", from.name, to.name), CONVERGENCE, || {
            Ping::default().send(from, to)?.check()
        })
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let attempts: Vec<_> = pairs.iter().map(|(from, to)| scope.spawn(|| reach(from, to))).collect();
        let outcomes = attempts
            .into_iter()
            .map(|attempt| attempt.join().unwrap_or_else(|_| Err(anyhow!("a ping panicked"))));
        outcomes.filter_map(|outcome| outcome.err().map(|error| format!("{error:#}"))).collect()
    });
    if pairs.is_empty() {
        bail!("there is no pair to try");
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}
