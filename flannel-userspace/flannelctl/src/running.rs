//! The running daemon as `flannelctl status` shows it.

use flannel_control::socket::{
    Cloud, Condition, ConditionState, HeldLease, LogLevels, Registry, RegistryKind, RegistryState,
    ServedConfiguration, Status,
};
use serde::Serialize;

use super::daemon::Daemon;
use super::page::Tone;
use super::units;

/// The daemon, and how it is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Running {
    /// Its process; nothing where that cannot be seen from here.
    pid: Option<u32>,
    version: Option<String>,
    /// Since when it runs, in seconds since 1970.
    started: Option<u64>,
    ready: bool,
    /// What is not so yet, or not any more.
    pending: Vec<String>,
    /// Why not, of what was so before.
    failing: Vec<Failing>,
    /// In what it forwards less well than it should, and why.
    limits: Vec<String>,
    /// Whether etcd is away; nothing where it does not say so.
    stale: Option<bool>,
    lease: Option<HeldLease>,
    registry: Option<Registry>,
    configuration: Option<ServedConfiguration>,
    /// The cloud whose route tables carry the packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud: Option<Cloud>,
    log_level: Option<LogLevels>,
    /// What told: `socket`, `nothing`.
    told_by: &'static str,
}

/// What was so and is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Failing {
    /// What.
    condition: String,
    /// Why.
    reason: String,
    /// For how long.
    seconds: u64,
}

impl From<Daemon> for Running {
    fn from(daemon: Daemon) -> Self {
        match daemon.told {
            Ok(status) => Self::of(daemon.pid, *status),
            Err(trouble) => Self::silent(daemon.pid, trouble),
        }
    }
}

impl Running {
    pub(super) fn of(pid: Option<u32>, status: Status) -> Self {
        let pending = status.conditions.iter().filter(|condition| condition.state != ConditionState::Met);
        Self {
            pid,
            version: Some(status.version),
            started: Some(status.started),
            ready: status.ready,
            pending: pending.map(|condition| condition.name.clone()).collect(),
            failing: status.conditions.into_iter().filter_map(Failing::of).collect(),
            limits: status.limits,
            stale: Some(status.registry.state == RegistryState::Away),
            lease: status.lease,
            registry: Some(status.registry),
            configuration: status.configuration,
            cloud: status.cloud,
            log_level: Some(status.log_level),
            told_by: "socket",
        }
    }

    /// Of one that does not answer as it should nothing good is believed.
    pub(super) fn silent(pid: Option<u32>, trouble: String) -> Self {
        Self {
            pid,
            version: None,
            started: None,
            ready: false,
            pending: vec![trouble],
            failing: Vec::new(),
            limits: Vec::new(),
            stale: None,
            lease: None,
            registry: None,
            configuration: None,
            cloud: None,
            log_level: None,
            told_by: "nothing",
        }
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) const fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    /// What is not as it should be, and why.
    pub(super) fn troubles(&self) -> Vec<(Tone, String)> {
        let failing = self.failing.iter().map(|Failing { condition, reason, seconds }| {
            (Tone::Bad, format!("not {condition} for {seconds} s: {reason}"))
        });
        let limits = self.limits.iter().map(|limit| (Tone::Warning, limit.clone()));
        let other = self.version.iter().filter(|version| *version != env!("CARGO_PKG_VERSION"));
        let other = other.map(|version| {
            (Tone::Warning, format!("it is flanneld {version}; this flannelctl came with another"))
        });
        let outdated = self.configuration.as_ref().and_then(|served| served.outdated.clone());
        let outdated = outdated.map(|outdated| (Tone::Warning, outdated));
        failing.chain(limits).chain(outdated).chain(other).collect()
    }

    pub(super) const fn tone(&self) -> Tone {
        if self.ready { Tone::Good } else { Tone::Bad }
    }

    pub(super) fn text(&self) -> String {
        let state = match self.ready {
            true if self.stale == Some(true) => format!("ready; {} is away", self.registry_name()),
            true => "ready".to_owned(),
            false => format!("not ready: {}", self.pending.join(", ")),
        };
        match self.pid {
            Some(pid) => format!("{state} (process {pid})"),
            None => state,
        }
    }

    /// The cloud that carries the packets.
    pub(super) const fn cloud(&self) -> Option<&Cloud> {
        self.cloud.as_ref()
    }

    /// What its registry is, and how this host's node is called there, for people.
    pub(super) fn registry_text(&self) -> Option<String> {
        let registry = self.registry.as_ref()?;
        Some(match (registry.kind, &registry.node) {
            (RegistryKind::Etcd, _) => "etcd".to_owned(),
            (RegistryKind::Kubernetes, Some(node)) => format!("Kubernetes, node {node}"),
            (RegistryKind::Kubernetes, None) => "Kubernetes".to_owned(),
        })
    }

    fn registry_name(&self) -> &'static str {
        match &self.registry {
            Some(Registry { kind: RegistryKind::Kubernetes, .. }) => "the API server",
            _ => "etcd",
        }
    }

    /// By what the configuration that is served is told apart from others.
    pub(super) fn hash(&self) -> Option<&str> {
        self.configuration.as_ref().map(|served| served.hash.as_str())
    }

    /// Until when this host has its subnet, for people.
    pub(super) fn lease_text(&self) -> Option<String> {
        let lease = self.lease.as_ref()?;
        Some(match lease.expires_seconds {
            Some(seconds) => format!("expires in {} unless renewed", units::duration(seconds)),
            None => "a reservation, which never expires".to_owned(),
        })
    }
}

impl Failing {
    fn of(condition: Condition) -> Option<Self> {
        let Condition { name, state, seconds, reason } = condition;
        let is_failed = state == ConditionState::Failed;
        is_failed.then(|| Self { condition: name, reason: reason.unwrap_or_default(), seconds })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flannel_control::socket::{
        Condition, ConditionState, HeldLease, LogLevel, LogLevels, Registry, RegistryKind, RegistryState,
        RuleSettings, ServedConfiguration, Settings, Status,
    };

    use super::Running;

    /// A daemon of process 7, and what it says of one of its conditions.
    pub(crate) fn running(state: ConditionState, reason: Option<&str>) -> Running {
        let condition = Condition {
            name: "datapath in place".to_owned(),
            state,
            seconds: 7,
            reason: reason.map(str::to_owned),
        };
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 1,
            started: 1_700_000_000,
            ready: state == ConditionState::Met,
            conditions: vec![condition],
            limits: Vec::new(),
            lease: Some(HeldLease {
                subnets: vec!["10.5.39.0/24".parse().unwrap()],
                public_ips: vec![[192, 168, 77, 11].into()],
                expires_seconds: Some(86_000),
            }),
            registry: Registry {
                kind: RegistryKind::Etcd,
                node: None,
                endpoints: vec!["http://192.168.77.1:2379".to_owned()],
                state: RegistryState::Reached,
            },
            configuration: Some(ServedConfiguration { hash: "0123456789ab".to_owned(), outdated: None }),
            cloud: None,
            log_level: LogLevels { level: LogLevel::Info, configured: LogLevel::Info },
            settings: Settings {
                etcd_prefix: "/coreos.com/network".to_owned(),
                pin_dir: "/sys/fs/bpf/x".into(),
                state_file: "/var/lib/flannel-ebpf/x.json".into(),
                subnet_file: "/run/flannel/subnet.env".into(),
                rules: RuleSettings {
                    masquerade: true,
                    fully_random: true,
                    forward: true,
                    guard: true,
                    blackhole: false,
                },
            },
        };
        Running::of(Some(7), status)
    }

    impl Running {
        /// It goes without something.
        pub(crate) fn limit(&mut self, limit: &str) {
            self.limits.push(limit.to_owned());
        }

        /// It serves another configuration than the registry's.
        pub(crate) fn outdate(&mut self, reason: &str) {
            let outdated = Some(reason.to_owned());
            self.configuration = Some(ServedConfiguration { hash: String::new(), outdated });
        }
    }

    #[test]
    fn the_registry_is_named() {
        let mut running = running(ConditionState::Met, None);
        assert_eq!(running.registry_text().as_deref(), Some("etcd"));
        running.stale = Some(true);
        assert_eq!(running.text(), "ready; etcd is away (process 7)");
        let registry = running.registry.as_mut().unwrap();
        (registry.kind, registry.node) = (RegistryKind::Kubernetes, Some("h1".to_owned()));
        assert_eq!(running.registry_text().as_deref(), Some("Kubernetes, node h1"));
        assert_eq!(running.text(), "ready; the API server is away (process 7)");
    }

    #[test]
    fn a_daemon_that_is_stuck_is_not_ready() {
        let running = Running::silent(Some(7), "flanneld at /x did not answer within 3s".to_owned());
        assert!(!running.is_ready());
        assert_eq!(running.text(), "not ready: flanneld at /x did not answer within 3s (process 7)");
        assert_eq!(running.lease_text(), None);
    }

    #[test]
    fn what_fails_is_told_apart_from_what_was_never_so() {
        let failed = running(ConditionState::Failed, Some("refused"));
        assert_eq!((failed.pending.len(), failed.failing[0].reason.as_str()), (1, "refused"));
        let pending = running(ConditionState::Pending, None);
        assert_eq!((pending.pending.len(), pending.failing.len()), (1, 0));
        assert_eq!(pending.text(), "not ready: datapath in place (process 7)");
    }
}
