//! A host: a machine, and daemons that start on it, serve it and end, one after the other.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flannel_common::Mac;
use flannel_control::Metrics;
use flannel_control::backend::{self, Transition};
use flannel_control::configuration::{Follower, Served};
use flannel_control::identity::Identity;
use flannel_control::kernel::Kernel as _;
use flannel_control::lease::{AddressClaim, Allocation, HoldConfig, Last, LeaseOwner as _, Own, Pool};
use flannel_control::peers::{DeletionGuard, DeletionPolicy, FamilySite, PeerTable, Site};
use flannel_control::reconcile::{Announcement, Loop, Memory, Node, Prepared, Reconciler};
use flannel_control::remembered::{self, Remembered, RememberedError};
use flannel_control::service::{End, Service};
use flannel_control::subnet_file::{self, SubnetFile, SubnetFileError};
use flannel_model::backend::Kind;
use flannel_model::config::Configuration;
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::lease::SubnetKey;
use flannel_model::underlay::Underlay;
use flannel_model::vxlan::Formats;
use flannel_observe::{Conditions, Vitals};
use flannel_registry::ConfigSource as _;
use ipnetwork::Ipv4Network;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use crate::kernel::{Machine, underlay};
use crate::registry::{Client, Cluster};

/// For how long a daemon waits for the registry when it remembers a lease.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that ended is started again after this long.
const RESTART: Duration = Duration::from_secs(1);
/// How leases are held.
const HOLD: HoldConfig = HoldConfig { ttl: Duration::from_secs(120), renew_margin: Duration::from_secs(40) };
/// What a mass deletion is.
const POLICY: DeletionPolicy = DeletionPolicy { threshold: 25, hold: Duration::from_secs(30) };

/// What is the same on every host, whatever happens to the configuration.
#[derive(Clone)]
pub struct Plan {
    /// The network of all pods.
    pub network: Ipv4Network,
    /// Prefix length of subnets.
    pub subnet_len: u8,
}

impl Plan {
    /// The subnets to choose from.
    pub fn pool(&self) -> Pool {
        let step = 1_u32 << (32 - self.subnet_len);
        let first = Ipv4Addr::from_bits(self.network.network().to_bits() + step);
        let last = Ipv4Addr::from_bits(self.network.broadcast().to_bits() + 1 - step);
        #[expect(clippy::expect_used, reason = "the plan is one of ours")]
        Pool::new(first.into(), last.into(), self.subnet_len).expect("a network has subnets")
    }

    /// What leases are checked against.
    pub fn site(
        &self,
        kind: Kind,
        vteps: PerFamily<(Formats, Mac)>,
        underlay: &Underlay,
        subnets: Subnets,
    ) -> Site {
        let family = |subnet: Ipv4Network| FamilySite {
            network: self.network.into(),
            subnet_len: self.subnet_len,
            subnet: subnet.into(),
            vtep: vteps.v4,
        };
        Site {
            families: PerFamily { v4: subnets.v4.map(family), v6: None },
            addresses: underlay.addresses.iter().chain(underlay.public.iter()).collect(),
            kind,
            connected: underlay.networks.clone(),
            reserved: Vec::new(),
        }
    }
}

/// Shared with its observers.
type Shared<T> = Arc<Mutex<T>>;

/// What is on the host's disk.
#[derive(Clone, Default)]
struct Disk {
    state: Shared<Option<Remembered>>,
    subnet: Shared<Option<SubnetFile>>,
}

/// The state file as one daemon has it. One that was killed writes nothing more.
struct StateFile {
    content: Shared<Option<Remembered>>,
    is_killed: Arc<AtomicBool>,
}

impl remembered::Store for StateFile {
    fn keep(&self, remembered: &Remembered) -> Result<(), RememberedError> {
        if self.is_killed.load(Ordering::Relaxed) {
            return Ok(());
        }
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Some(remembered.clone());
        Ok(())
    }
}

struct SubnetStore(Shared<Option<SubnetFile>>);

impl subnet_file::Store for SubnetStore {
    fn keep(&self, file: &SubnetFile) -> Result<(), SubnetFileError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(*file);
        Ok(())
    }
}

/// What a daemon says of itself.
#[derive(Clone, Default)]
pub struct Status {
    /// The key of the lease it serves, once it has one.
    pub key: Option<SubnetKey>,
    /// Whether it is ready.
    pub conditions: Option<Conditions>,
    /// The configuration that it serves.
    pub served: Option<Served>,
    /// Since when.
    pub since: Option<Instant>,
    /// How many daemons were started so far.
    pub starts: usize,
    /// A change of the subnet that nobody asked for.
    pub needless: Option<String>,
}

/// A host.
pub struct Host {
    pub number: usize,
    pub machine: Machine,
    client: Client,
    cluster: Cluster,
    plan: Plan,
    disk: Disk,
    status: Shared<Status>,
    bug: Arc<Notify>,
    is_killed: Arc<AtomicBool>,
    identity: Identity,
    life: Option<JoinHandle<()>>,
}

impl Host {
    /// A host on which no daemon runs yet.
    pub fn new(number: usize, machine: Machine, cluster: &Cluster, plan: Plan, seed: u64) -> Self {
        Self {
            number,
            machine,
            client: cluster.client(number, seed),
            cluster: cluster.clone(),
            plan,
            disk: Disk::default(),
            status: Arc::default(),
            bug: Arc::default(),
            is_killed: Arc::default(),
            identity: Identity::of(underlay(number, 0).mac),
            life: None,
        }
    }

    /// What its daemon says of itself.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends its daemon, wherever that is in what it does, if one runs.
    pub fn stop(&mut self) {
        if let Some(life) = self.life.take() {
            self.is_killed.store(true, Ordering::Relaxed);
            life.abort();
        }
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (status.conditions, status.since) = (None, None);
    }

    /// Starts a daemon, and another one whenever that ends.
    pub fn start(&mut self) {
        self.stop();
        self.is_killed = Arc::default();
        let daemon = Daemon {
            number: self.number,
            machine: self.machine.clone(),
            client: self.client.clone(),
            cluster: self.cluster.clone(),
            plan: self.plan.clone(),
            disk: self.disk.clone(),
            status: self.status.clone(),
            bug: self.bug.clone(),
            is_killed: self.is_killed.clone(),
            identity: self.identity.clone(),
        };
        self.life = Some(tokio::spawn(async move {
            let span = tracing::info_span!("host", number = daemon.number);
            loop {
                let end = daemon.serve().instrument(span.clone()).await;
                tracing::info!(host = daemon.number, ?end, "ended");
                sleep(RESTART).await;
            }
        }));
    }

    /// Whether a daemon runs.
    pub const fn runs(&self) -> bool {
        self.life.is_some()
    }

    /// Has a task of its daemon fail.
    pub fn fail_a_task(&self) {
        self.bug.notify_waiters();
    }
}

/// A daemon as `flanneld` puts it together.
struct Daemon {
    number: usize,
    machine: Machine,
    client: Client,
    cluster: Cluster,
    plan: Plan,
    disk: Disk,
    status: Shared<Status>,
    bug: Arc<Notify>,
    is_killed: Arc<AtomicBool>,
    identity: Identity,
}

impl Daemon {
    fn tell(&self, tell: impl FnOnce(&mut Status)) {
        tell(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Serves the host until that ends; `None` if it could not start.
    async fn serve(&self) -> Option<End> {
        self.cluster.start(self.number);
        let vitals = Vitals::default();
        let condition = |name| vitals.conditions.add(name);
        let (lease, datapath, listing) = (condition("lease"), condition("datapath"), condition("listing"));
        self.tell(|status| {
            status.starts += 1;
            (status.conditions, status.since) = (Some(vitals.conditions.clone()), Some(Instant::now()));
        });
        let mut kernel = self.machine.kernel();
        let underlay = kernel.underlay(None).await.ok()?;
        let identity = self.identity.clone();
        let remembered = self.disk.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let configuration = self.configuration(remembered.as_ref()).await;
        let config = configuration.text.clone();
        let last_formats = remembered.as_ref().and_then(Remembered::last_formats);
        let remembered = remembered.filter(|remembered| remembered.is_of(&identity, &config));
        let public_ip = underlay.public.first()?;
        let claim = AddressClaim::new(self.client.clone(), identity.clone(), public_ip)
            .made_within(None)
            .await
            .ok()?;
        let own = remembered.as_ref().map(|remembered| &remembered.own);
        let former_macs = own.map_or(PerFamily::NONE, |own| own.vtep_macs_at(&underlay.public));
        let formats = configuration
            .backend
            .vxlan_format()
            .map(|wanted| last_formats.map_or(Formats::only(wanted), |last| last.toward(wanted)));
        let backend = match formats {
            Some(Formats { present, former }) => {
                let transition = Transition { former, ..Transition::default() };
                backend::between(&configuration.backend.with_vxlan_format(present), transition)
            }
            None => backend::of(&configuration.backend),
        };
        let prepared = Prepared::new(kernel, backend, underlay.clone(), former_macs).await.ok()?;
        let before = self.disk.subnet.lock().unwrap_or_else(PoisonError::into_inner).map(|file| file.subnets);
        let metrics = Metrics::default();
        let owner = Allocation {
            registry: self.client.clone(),
            pools: PerFamily::only_v4(self.plan.pool()),
            previous: before.or(own.map(|own| own.subnets)).unwrap_or_default(),
            former_term: own.and_then(|own| own.term),
            hold: HOLD,
            metrics: metrics.leases.clone(),
        };
        let last = remembered.as_ref().map(|remembered| Last { own: &remembered.own, patience: PATIENCE });
        // One that it acquired since and has not announced counts as well.
        let leases = self.cluster.snapshot().leases;
        let has_lease = leases.iter().any(|lease| lease.attributes.public.first() == Some(public_ip));
        let is_free = |before: &SubnetKey| self.cluster.is_free_for(*before, public_ip);
        let before = before.map(SubnetKey).filter(|before| !has_lease && is_free(before));
        let (lease_handle, keeping) = owner.acquire(prepared.attributes(), last).await.ok()?;
        lease.meet();
        let key = lease_handle.state().borrow().lease.key();
        let SubnetKey(subnets) = key;
        self.note_key(before, key, public_ip);
        let kind = prepared.backend().kind();
        let vteps = backend::vteps(prepared.backend(), prepared.links());
        let networks = Subnets::from(self.plan.network);
        let file =
            SubnetFile { networks, subnets, mtu: prepared.backend().mtu(prepared.links()), ip_masq: false };
        let mut peers = PeerTable::new(self.plan.site(kind, vteps, &underlay, subnets));
        let node = Node::start(prepared, networks, subnets).await.ok()?;
        datapath.meet();
        let held = lease_handle.state();
        let place = Box::new(SubnetStore(self.disk.subnet.clone()));
        let announcement = Announcement { lease: lease_handle, file, place };
        let (content, is_killed) = (self.disk.state.clone(), self.is_killed.clone());
        let store = Box::new(StateFile { content, is_killed });
        let mut memory = Memory::new(store, identity, config);
        let remembered = memory.begin(remembered, Own::of(&held.borrow(), vteps));
        announcement.write_file().ok()?;
        let known = remembered.map(|remembered| peers.apply_snapshot(&remembered.snapshot(kind)));
        let (follower, served) = Follower::new(
            self.client.clone(),
            configuration,
            vitals.conditions.clone(),
            metrics.configuration.clone(),
        );
        self.tell(|status| status.served = Some(served.clone()));
        let (synced, first_sync) = oneshot::channel();
        let (_operator, orders) = mpsc::unbounded_channel();
        let reconciler = Reconciler {
            registry: self.client.clone(),
            announcement,
            node,
            peers,
            known,
            deletion_guard: DeletionGuard::new(POLICY),
            memory,
            vitals: vitals.clone(),
            metrics: metrics.reconcile.clone(),
            etcd_metrics: metrics.etcd.clone(),
            in_place: datapath,
            synced,
            orders,
            configuration: served,
            formats,
        };
        let mut service = Service::default();
        service.hold(keeping);
        service.run(claim.run(held));
        service.run(follower.run());
        service.run(Loop::new(reconciler).run());
        service.run(async move {
            if first_sync.await.is_ok() {
                listing.meet();
            }
            pending().await
        });
        let bug = self.bug.clone();
        service.run(async move {
            bug.notified().await;
            std::panic::resume_unwind(Box::new("a bug that is played"))
        });
        Some(service.end().await)
    }

    /// The configuration to begin with: the one in the registry, or, where that is away for long, the last one.
    async fn configuration(&self, remembered: Option<&Remembered>) -> Configuration {
        let since = Instant::now();
        loop {
            let read = self.client.config().await;
            if let Ok(Ok(configuration)) = read.map(Configuration::parse) {
                return configuration;
            }
            let last = remembered.filter(|_| since.elapsed() > PATIENCE);
            if let Some(Ok(configuration)) = last.map(|last| Configuration::parse(last.config.clone())) {
                return configuration;
            }
            sleep(RESTART).await;
        }
    }

    /// A host that comes back has the subnet it had, unless that is another's by now.
    fn note_key(&self, before: Option<SubnetKey>, now: SubnetKey, public_ip: IpAddr) {
        let is_needless = |before: &SubnetKey| *before != now && self.cluster.is_free_for(*before, public_ip);
        let needless = before.filter(is_needless);
        self.tell(|status| {
            status.key = Some(now);
            if let Some(before) = needless {
                status.needless = Some(format!("host {} had {before} and took {now}", self.number));
            }
        });
    }
}
