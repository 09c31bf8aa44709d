//! What is said over the control socket. Names of fields are a stable interface: they stay, others may come beside them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::lease::Withdrawn;

/// The version of all this. Who does not know it cannot read the answer.
pub(super) const VERSION: u32 = 1;
/// How [`WantedLevel::Configured`] is written.
const CONFIGURED: &str = "configured";
/// Longest request, in bytes with the end of its line.
pub(super) const LONGEST_REQUEST: usize = 4 << 10;
/// Longest answer, in bytes with the end of its line.
pub(super) const LONGEST_ANSWER: usize = 8 << 20;

/// What the daemon is asked or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is, and what it was told: [`Status`].
    Status,
    /// How much it logs, from now on if a level is given: [`LogLevels`].
    LogLevel {
        /// From which level on.
        #[serde(default)]
        level: Option<WantedLevel>,
    },
    /// To read TLS and password files again, as by SIGHUP: [`Reloaded`].
    Reload,
    /// How the nodes are called that lease subnets, where Kubernetes is the registry: [`NodeNames`].
    Nodes,
    /// To let the peers of a mass deletion go that are held: [`Released`].
    Release,
    /// To withdraw this host's lease, and to end: [`Left`].
    Leave,
}

impl Request {
    /// How long the daemon has to do it.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self {
            Self::Status | Self::LogLevel { .. } | Self::Nodes => Duration::from_secs(2),
            // The loop may be busy with the kernel.
            Self::Release => Duration::from_secs(10),
            // The registry is asked.
            Self::Reload | Self::Leave => Duration::from_secs(30),
        }
    }
}

/// What every answer is wrapped in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope<A> {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) outcome: Outcome<A>,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome<A> {
    /// It was done.
    Answer(A),
    /// It was not, and why.
    Error(String),
}

/// The daemon, how it is, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which flanneld.
    pub version: String,
    /// Its process, in its own PID namespace.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// Whether every condition is met.
    pub ready: bool,
    /// What must be so for the host to forward.
    pub conditions: Vec<Condition>,
    /// In what the host forwards less well than it should, and why.
    pub limits: Vec<String>,
    /// The own lease, once there is one.
    pub lease: Option<HeldLease>,
    /// The registry.
    pub registry: Registry,
    /// The network's configuration, once it is served.
    #[serde(default)]
    pub configuration: Option<ServedConfiguration>,
    /// The cloud whose route tables carry the packets, once they were read.
    #[serde(default)]
    pub cloud: Option<Cloud>,
    /// How much is logged.
    pub log_level: LogLevels,
    /// What it was told.
    pub settings: Settings,
}

/// Something that must be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What.
    pub name: String,
    /// Whether it is.
    pub state: ConditionState,
    /// For how long.
    pub seconds: u64,
    /// Why it is not so any more.
    pub reason: Option<String>,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionState {
    /// Not yet.
    Pending,
    /// It is.
    Met,
    /// Not any more.
    Failed,
}

/// The own lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLease {
    /// What is leased, one subnet of each family at most.
    pub subnets: Vec<IpNetwork>,
    /// The addresses at which other hosts reach this one.
    pub public_ips: Vec<IpAddr>,
    /// How long it lasts yet unless it is renewed; nothing for a reservation, which never ends.
    pub expires_seconds: Option<u64>,
}

/// The registry as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// What it is.
    #[serde(default)]
    pub kind: RegistryKind,
    /// How this host's node is called, where it is Kubernetes and that is known.
    #[serde(default)]
    pub node: Option<String>,
    /// Where it is, without credentials.
    pub endpoints: Vec<String>,
    /// Whether it is there.
    pub state: RegistryState,
}

/// What the registry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryKind {
    /// etcd.
    #[default]
    Etcd,
    /// The API server of a Kubernetes cluster.
    Kubernetes,
}

/// The nodes that lease subnets, without this host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNames {
    /// Each of them.
    pub nodes: Vec<NamedNode>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNode {
    /// How it is called.
    pub name: String,
    /// What it leases, one subnet of each family at most.
    pub subnets: Vec<IpNetwork>,
}

/// Whether the registry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryState {
    /// The daemon waits for it, for the configuration or for a lease.
    Waiting,
    /// It answers.
    Reached,
    /// It does not; forwarding goes on with what is known.
    Away,
}

/// The network's configuration, as it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedConfiguration {
    /// The beginning of the SHA-256 of its text: the same on every host.
    pub hash: String,
    /// Why the one in the registry, which is another, is not served.
    pub outdated: Option<String>,
}

/// The cloud's route tables as they were read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// What this host is as the target of a route.
    pub target: String,
    /// Where it is: region, zone, network.
    pub place: String,
    /// Every table that leads to this host.
    pub tables: Vec<CloudTable>,
    /// How long ago everything was seen to be as it should.
    pub in_step_seconds: Option<u64>,
}

/// One of the cloud's route tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudTable {
    /// Its name or number.
    pub id: String,
    /// How many routes it has that count against the quota.
    pub used: usize,
    /// The quota, if that is known.
    pub limit: Option<usize>,
}

/// What the daemon was told, as far as others need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What the keys of its network begin with.
    pub etcd_prefix: String,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Where the last known leases are kept.
    pub state_file: PathBuf,
    /// Where the subnet file is written.
    pub subnet_file: PathBuf,
    /// Which rules are kept.
    pub rules: RuleSettings,
}

/// Which rules the daemon keeps, and the blackhole route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSettings {
    /// Whether packets between the network and the world outside are masqueraded.
    pub masquerade: bool,
    /// Whether masquerading takes source ports at random.
    pub fully_random: bool,
    /// Whether packets from and to the network are accepted where the host forwards.
    pub forward: bool,
    /// Whether what pods send to the tunnel's port outside the network is dropped.
    pub guard: bool,
    /// Whether what is sent to no pod of this host ends here.
    pub blackhole: bool,
}

/// From where on the daemon logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What does not work.
    Error,
    /// What may not work.
    Warn,
    /// What matters to operators.
    Info,
    /// What helps to find faults.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// All of them, from the fewest messages to the most.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// From where on the daemon is to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantedLevel {
    /// As its command line says.
    Configured,
    /// From this level on.
    #[serde(untagged)]
    Level(LogLevel),
}

impl WantedLevel {
    /// How each is written.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LogLevel::ALL.into_iter().map(LogLevel::name).chain([CONFIGURED])
    }
}

impl FromStr for WantedLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let level = LogLevel::ALL.into_iter().find(|level| level.name() == text);
        let configured = (text == CONFIGURED).then_some(Self::Configured);
        level.map(Self::Level).or(configured).ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// There is no such level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no level: those are error, warn, info, debug, trace, and configured")]
pub struct UnknownLevel(String);

/// From where on the daemon logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevels {
    /// Now.
    pub level: LogLevel,
    /// By its command line.
    pub configured: LogLevel,
}

/// What was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The files, with which the registry answers.
    pub files: Vec<PathBuf>,
}

/// Who was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// How many peers.
    pub peers: usize,
}

/// What became of this host's keys in the registry. The daemon is about to end, and the datapath stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What was leased, one subnet of each family at most.
    pub subnets: Vec<IpNetwork>,
    /// What became of the lease.
    pub lease: Withdrawn,
    /// What became of the claim to the public address.
    pub claim: Claimed,
}

/// What became of the claim to the public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claimed {
    /// It was deleted.
    Deleted,
    /// It could not be, and expires within a minute.
    Expires,
}
