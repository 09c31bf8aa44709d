//! What the daemon does about what it is asked and told over the control socket.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use flannel_cloud::Seen;
use flannel_common::maps::Guard;
use flannel_control::configuration::Served;
use flannel_control::lease::LeaseState;
use flannel_control::reconcile::Order;
use flannel_control::socket::{
    Condition, ConditionState, HeldLease, Listener, LogLevel, LogLevels, NamedNode, NodeNames, Registry,
    RegistryKind, RegistryState, Released, Reloaded, Reply, Request, RuleSettings, Serve,
    ServedConfiguration, Settings, SocketError, Status, WantedLevel,
};
use flannel_control::{file, socket};
use flannel_kubernetes::Nodes;
use flannel_model::error::Chain;
use flannel_model::family::Subnets;
use flannel_observe::{Limit, Status as ConditionStatus, Vitals};
use flannel_registry::etcd::{self, Etcd};
use flannel_registry::{ConfigSource as _, RegistryError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Level, info, warn};

use super::DaemonError;
use super::leave::Leave;
use super::log::LogLevelHandle;
use super::signals::Hangups;
use crate::cli::Options;

/// The socket, who answers there, and the other ends of what is told there.
pub(super) struct Desk {
    pub(super) control: Control,
    /// Nothing where the socket cannot be made.
    pub(super) listener: Option<Listener>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) leaves: mpsc::Receiver<Leave>,
}

/// The registry, as far as others may ask about it.
pub(super) struct Registered {
    /// Where it answers.
    pub(super) endpoints: Vec<String>,
    /// The nodes that are its leases, where it is Kubernetes.
    pub(super) nodes: Option<Nodes>,
}

/// Answers whoever asks. Clones are one.
#[derive(Clone)]
pub(super) struct Control(Arc<Inner>);

struct Inner {
    started: u64,
    /// How to reach etcd, unless leases are kept elsewhere.
    etcd: Option<etcd::Options>,
    settings: Settings,
    vitals: Vitals,
    log_level: LogLevelHandle,
    orders: mpsc::UnboundedSender<Order>,
    leaves: mpsc::Sender<Leave>,
    /// The own lease, once the host is served.
    lease: OnceLock<watch::Receiver<LeaseState>>,
    /// The network's configuration, as it is served.
    configuration: OnceLock<Served>,
    /// The cloud, where the backend has one.
    cloud: OnceLock<watch::Receiver<Option<Seen>>>,
    /// The registry, once it is known.
    registered: OnceLock<Registered>,
}

impl Desk {
    /// Opens the socket of the network that this daemon alone serves. Without one the daemon goes on.
    ///
    /// # Errors
    /// SIGHUP, by which the daemon is asked as well, cannot be received.
    pub(super) fn open(
        options: &Options,
        vitals: &Vitals,
        log_level: LogLevelHandle,
    ) -> Result<Self, DaemonError> {
        let (orders, told) = mpsc::unbounded_channel();
        let (leaves, leaving) = mpsc::channel(1);
        let hangups = Hangups::new()?;
        let control = Control(Arc::new(Inner {
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            etcd: options.kubernetes.is_none().then(|| options.etcd.clone()),
            settings: settings(options),
            vitals: vitals.clone(),
            log_level,
            orders,
            leaves,
            lease: OnceLock::new(),
            configuration: OnceLock::new(),
            cloud: OnceLock::new(),
            registered: OnceLock::new(),
        }));
        tokio::spawn(control.clone().follow(hangups));
        let listener = listen(&options.etcd.prefix).inspect_err(tell).ok();
        Ok(Self { control, listener, orders: told, leaves: leaving })
    }
}

fn listen(etcd_prefix: &str) -> Result<Listener, SocketError> {
    let path =
        socket::path(etcd_prefix).map_err(|source| SocketError { path: PathBuf::from("/proc"), source })?;
    Listener::open(&path)
}

fn tell(error: &SocketError) {
    let directory = file::directory_of(&error.path).display();
    warn!(
        "{}; flannelctl cannot ask this daemon or tell it anything: let {directory} be a directory the daemon can write \
         (systemd: RuntimeDirectory=flannel; a container: mount the host's {directory}), and restart it",
        Chain(error)
    );
}

fn settings(options: &Options) -> Settings {
    let rules = &options.rules;
    Settings {
        etcd_prefix: options.etcd.prefix.clone(),
        pin_dir: options.pin_dir.clone(),
        state_file: options.state_file.clone(),
        subnet_file: options.subnet_file.clone(),
        rules: RuleSettings {
            masquerade: rules.masquerade,
            fully_random: rules.fully_random,
            forward: rules.forward,
            guard: options.guard != Guard::Off,
            blackhole: rules.blackhole,
        },
    }
}

impl Serve for Control {
    async fn serve(&self, request: Request) -> Reply {
        match request {
            Request::Status => Reply::answer(&self.status()),
            Request::LogLevel { level } => match self.log_level(level) {
                Ok(levels) => Reply::answer(&levels),
                Err(reason) => Reply::refusal(reason),
            },
            Request::Reload => match self.reload().await {
                Ok(reloaded) => Reply::answer(&reloaded),
                Err(reason) => Reply::refusal(reason),
            },
            Request::Nodes => self.node_names(),
            Request::Release => self.release().await,
            Request::Leave => self.leave().await,
        }
    }
}

impl Control {
    /// Hears of the registry.
    pub(super) fn registered(&self, registered: Registered) {
        // It is told once.
        let _ = self.0.registered.set(registered);
    }

    /// Hears that the host is served, by this lease, and by this configuration.
    pub(super) fn serving(&self, lease: watch::Receiver<LeaseState>, configuration: Served) {
        // It is told once.
        let _ = self.0.lease.set(lease);
        let _ = self.0.configuration.set(configuration);
    }

    /// Hears what is seen of the cloud.
    pub(super) fn sees(&self, cloud: watch::Receiver<Option<Seen>>) {
        // It is told once.
        let _ = self.0.cloud.set(cloud);
    }

    /// Reads the files again with each SIGHUP.
    async fn follow(self, mut hangups: Hangups) {
        while hangups.next().await.is_some() {
            if let Err(error) = self.reload().await {
                warn!("SIGHUP: {error}");
            }
        }
    }

    fn status(&self) -> Status {
        let conditions = &self.0.vitals.conditions;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.0.started,
            ready: conditions.pending().is_empty(),
            conditions: conditions.all().into_iter().map(condition).collect(),
            limits: conditions.limits().iter().map(Limit::to_string).collect(),
            lease: self.0.lease.get().map(|lease| held(&lease.borrow())),
            registry: self.registry(),
            configuration: self.0.configuration.get().map(|served| ServedConfiguration {
                hash: served.borrow().hash(),
                outdated: conditions.outdated(),
            }),
            cloud: self.0.cloud.get().and_then(|cloud| cloud.borrow().as_ref().map(Seen::told)),
            log_level: self.levels(),
            settings: self.0.settings.clone(),
        }
    }

    fn registry(&self) -> Registry {
        let registered = self.0.registered.get();
        let urls = registered.map_or(&[][..], |registered| &registered.endpoints);
        let nodes = self.nodes();
        Registry {
            kind: if nodes.is_some() { RegistryKind::Kubernetes } else { RegistryKind::Etcd },
            node: nodes.and_then(Nodes::known_name).map(str::to_owned),
            endpoints: urls.iter().map(|url| without_credentials(url)).collect(),
            state: match (self.0.vitals.conditions.stale(), self.0.lease.get()) {
                (Some(_), _) => RegistryState::Away,
                (None, Some(_)) => RegistryState::Reached,
                (None, None) => RegistryState::Waiting,
            },
        }
    }

    fn nodes(&self) -> Option<&Nodes> {
        self.0.registered.get()?.nodes.as_ref()
    }

    fn node_names(&self) -> Reply {
        let Some(nodes) = self.nodes() else {
            return Reply::refusal("the leases are not in Kubernetes, so no nodes hold them".to_owned());
        };
        let named =
            |(name, subnets): (String, Subnets)| NamedNode { name, subnets: subnets.iter().collect() };
        Reply::answer(&NodeNames { nodes: nodes.names().into_iter().map(named).collect() })
    }

    fn levels(&self) -> LogLevels {
        LogLevels { level: named(self.0.log_level.now()), configured: named(self.0.log_level.initial()) }
    }

    fn log_level(&self, wanted: Option<WantedLevel>) -> Result<LogLevels, String> {
        if let Some(wanted) = wanted {
            let level = match wanted {
                WantedLevel::Configured => self.0.log_level.initial(),
                WantedLevel::Level(named) => level(named),
            };
            self.0
                .log_level
                .set(level)
                .map_err(|error| format!("cannot change how much is logged: {error}"))?;
        }
        Ok(self.levels())
    }

    /// A connection that works is given up only for one that does, too.
    async fn reload(&self) -> Result<Reloaded, String> {
        let files = match &self.0.etcd {
            Some(options) => read_again(options).await?,
            // Its files are read again with every connection.
            None => Vec::new(),
        };
        let (reply, done) = oneshot::channel();
        let is_taken = self.0.orders.send(Order::Reconnect(reply)).is_ok();
        // Nobody obeys before the host is served.
        if is_taken && self.0.lease.get().is_some() {
            let _ = done.await;
        }
        Ok(Reloaded { files })
    }

    async fn release(&self) -> Reply {
        let (reply, released) = oneshot::channel();
        let is_taken = self.0.lease.get().is_some() && self.0.orders.send(Order::Release(reply)).is_ok();
        // Who does not serve the host yet holds nobody.
        let peers = if is_taken { released.await.unwrap_or_default() } else { 0 };
        Reply::answer(&Released { peers })
    }

    async fn leave(&self) -> Reply {
        let (leave, outcome, until_written) = Leave::new();
        if self.0.lease.get().is_none() {
            return Reply::refusal(
                "this host holds no lease yet, so there is none to withdraw; SIGTERM ends the daemon"
                    .to_owned(),
            );
        }
        if self.0.leaves.try_send(leave).is_err() {
            return Reply::refusal("flanneld is leaving already".to_owned());
        }
        match outcome.await {
            Ok(Ok(left)) => Reply::answer(&left).holding(until_written),
            Ok(Err(reason)) => Reply::refusal(reason),
            Err(_) => Reply::refusal("flanneld is ending".to_owned()),
        }
    }
}

/// The files of the settings, once etcd has answered with what they say now.
async fn read_again(options: &etcd::Options) -> Result<Vec<PathBuf>, String> {
    let failed = |error: RegistryError| {
        format!("etcd does not answer with what the files say now; nothing is changed: {}", Chain(&error))
    };
    let registry = Etcd::new(options.clone()).map_err(failed)?;
    match registry.config().await {
        // Who says so has let this host in.
        Ok(_) | Err(RegistryError::ConfigMissing { .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    let files: Vec<PathBuf> = options.files().map(PathBuf::from).collect();
    info!(?files, "read the files for etcd again");
    Ok(files)
}

fn condition((name, status, age): (&str, ConditionStatus, std::time::Duration)) -> Condition {
    let (state, reason) = match status {
        ConditionStatus::Pending => (ConditionState::Pending, None),
        ConditionStatus::Met => (ConditionState::Met, None),
        ConditionStatus::Failed(reason) => (ConditionState::Failed, Some(reason)),
    };
    Condition { name: name.to_owned(), state, seconds: age.as_secs(), reason }
}

fn held(state: &LeaseState) -> HeldLease {
    HeldLease {
        subnets: state.lease.subnets.iter().collect(),
        public_ips: state.lease.attributes.public.iter().collect(),
        expires_seconds: state.expires.map(|end| end.saturating_duration_since(Instant::now()).as_secs()),
    }
}

const fn named(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

const fn level(named: LogLevel) -> Level {
    match named {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

/// Whoever may ask may read the password where it stands; but answers are shown to others.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tracing::Level;

    use super::{level, named, without_credentials};

    #[rstest]
    #[case("http://192.168.77.1:2379", "http://192.168.77.1:2379")]
    #[case("https://root:canary@etcd:2379/", "https://etcd:2379/")]
    #[case("root:can@ary@etcd:2379", "etcd:2379")]
    #[case("http://etcd/a@b", "http://etcd/a@b")]
    fn endpoints_are_told_without_credentials(#[case] url: &str, #[case] told: &str) {
        assert_eq!(without_credentials(url), told);
    }

    #[rstest]
    fn levels_have_names(
        #[values(Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE)] known: Level,
    ) {
        assert_eq!(level(named(known)), known);
    }
}
