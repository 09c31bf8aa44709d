//! The command line of `flanneld`: the flags and variables of stock flannel, and a few of its own.
//!
//! Words are read as Go's `flag` package reads them (`words`), variables fill in what is not given there, and both go
//! to clap (`flags`), which knows types, defaults and the help. Flags of stock flannel that this daemon does not serve
//! are refused, never ignored (`stock`).

mod command;
mod flags;
mod ignored;
mod kubernetes;
mod odd;
mod pages;
mod refusal;
mod removed;
mod stock;
#[cfg(test)]
mod tests;
mod values;
mod words;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::FromArgMatches as _;
use flannel_common::flow::Bypass;
use flannel_common::maps::Guard;
use flannel_control::lease::HoldConfig;
use flannel_control::peers::DeletionPolicy;
use flannel_datapath::metrics::PerPeer;
use flannel_datapath::{HookChoice, ProgramSettings};
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::config::{default_pin_dir, default_state_file};
use flannel_model::family::Addresses;
use flannel_observe::Endpoints;
use flannel_registry::etcd::{self, Password};
use tracing::Level;

use self::flags::{EtcdFlags, Flags, HealthFlags};
pub use self::kubernetes::KubernetesOptions;
pub use self::refusal::Refusal;
pub use self::values::LogFormat;
use self::words::Settings;

/// What `--version` prints.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "\n");
/// Renewal margins that leave some of the 24 hours of stock flannel's leases, in minutes.
const MARGINS: std::ops::RangeInclusive<i64> = 1..=24 * 60 - 1;

/// The daemon's settings, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to reach etcd.
    pub etcd: etcd::Options,
    /// How to reach Kubernetes, if that is the registry instead of etcd.
    pub kubernetes: Option<KubernetesOptions>,
    /// Which interface carries the tunnel, and which address is announced.
    pub interface: InterfaceOptions,
    /// How long the lease is granted at a time.
    pub lease: HoldConfig,
    /// When peers whose leases are deleted expire.
    pub deletion_policy: DeletionPolicy,
    /// Where the last known leases are kept.
    pub state_file: PathBuf,
    /// Where the subnet file is written.
    pub subnet_file: PathBuf,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Where programs are attached.
    pub hook: HookChoice,
    /// What they do besides.
    pub program_settings: ProgramSettings,
    /// How strictly the guard checks packets out of the tunnel.
    pub guard: Guard,
    /// Which flows between pods and peers bypass the stack.
    pub bypass: Bypass,
    /// Whether the DSCP of inner packets is copied to outer ones.
    pub copy_dscp: bool,
    /// Which rules are written.
    pub rules: RuleOptions,
    /// Whether the host is made to forward packets.
    pub ip_forward: bool,
    /// About how long between two looks at the cloud's route tables.
    pub cloud_resync: Duration,
    /// Bridges whose ports lead to pods.
    pub pod_bridges: Vec<String>,
    /// Where health and metrics are shown.
    pub endpoints: Endpoints,
    /// Whether metrics have series for each peer.
    pub metrics_per_peer: PerPeer,
    /// The least important messages to log.
    pub log_level: Level,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Whether to find out if the daemon could run, instead of running.
    pub check: bool,
}

/// Which rules are written, and the blackhole route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleOptions {
    /// Whether packets between the network and other networks are masqueraded.
    pub masquerade: bool,
    /// Whether masquerading takes source ports at random.
    pub fully_random: bool,
    /// Whether packets from and to the network are accepted where the host forwards.
    pub forward: bool,
    /// Pause between two checks.
    pub resync: Duration,
    /// Whether packets to this host's subnet without a pod end here.
    pub blackhole: bool,
}

/// Reads the command line, program name included, and the variables of the process.
///
/// # Errors
/// There is nothing to run: help, a page or the version is asked for, or there is an error.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Options, Refusal> {
    parse_in(words, |name| std::env::var_os(name))
}

/// As [`parse`], with the variables from `environment`.
///
/// # Errors
/// As with [`parse`].
pub fn parse_in(
    words: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Options, Refusal> {
    let mut command = command::command();
    let mut settings = Settings::read(&command, words.into_iter().skip(1))?;
    settings.fill_in(&command, &environment);
    settings.check()?;
    // clap does not know which came from variables.
    let refusal = |error: clap::Error| Refusal::from_clap(&error, settings.notes(&error));
    let matches = command.try_get_matches_from_mut(settings.words(&command)).map_err(refusal)?;
    let flags = Flags::from_arg_matches(&matches).map_err(refusal)?;
    if flags.version.is_on() {
        return Err(Refusal::answer(VERSION));
    }
    if flags.man.is_on() {
        return Err(pages::manual(command));
    }
    if let Some(shell) = flags.completions {
        return Err(pages::completions(command, shell));
    }
    stock::check(&flags, &settings)?;
    Options::new(flags, &settings, environment)
}

/// A sentence for each variable of the process that looks as if it said something to this daemon, and does not.
#[must_use]
pub fn ignored_variables() -> Vec<String> {
    let names = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    ignored::ignored(&command::command(), names.filter_map(|(name, _)| name.into_string().ok()))
}

impl Options {
    fn new(
        flags: Flags,
        settings: &Settings,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Refusal> {
        let Flags { interface, lease, datapath, rules, .. } = flags;
        Ok(Self {
            lease: HoldConfig {
                ttl: lease.subnet_lease_ttl,
                renew_margin: renew_margin(lease.subnet_lease_renew_margin)?,
            },
            deletion_policy: DeletionPolicy {
                threshold: lease.mass_delete_threshold,
                hold: lease.mass_delete_hold,
            },
            state_file: lease.state_file.unwrap_or_else(|| default_state_file(&flags.etcd.etcd_prefix)),
            pin_dir: datapath.pin_dir.unwrap_or_else(|| default_pin_dir(&flags.etcd.etcd_prefix)),
            etcd: etcd_options(flags.etcd)?,
            kubernetes: KubernetesOptions::new(flags.kubernetes, settings, environment)?,
            interface: InterfaceOptions {
                iface: interface.iface,
                iface_regex: interface.iface_regex,
                iface_can_reach: interface.iface_can_reach,
                public: Addresses { v4: interface.public_ip, v6: interface.public_ipv6 },
            },
            subnet_file: lease.subnet_file,
            hook: datapath.datapath_hook,
            program_settings: ProgramSettings {
                log: datapath.datapath_log,
                counts: datapath.datapath_counters.is_on(),
            },
            guard: datapath.guard.into(),
            bypass: datapath.pod_bypass.into(),
            copy_dscp: datapath.copy_dscp.is_on(),
            rules: RuleOptions {
                masquerade: rules.ip_masq.is_on(),
                fully_random: !rules.ip_masq_fully_random_disable.is_on(),
                forward: rules.iptables_forward_rules.is_on(),
                resync: Duration::from_secs(rules.iptables_resync.into()),
                blackhole: rules.ip_blackhole_route.is_on(),
            },
            ip_forward: rules.ip_forward.is_on(),
            pod_bridges: datapath.pod_bridges.into(),
            cloud_resync: Duration::from_secs(flags.cloud.cloud_resync.into()),
            endpoints: endpoints(&flags.health),
            metrics_per_peer: flags.health.metrics_per_peer.into(),
            log_level: values::log_level(flags.logging.v),
            log_format: flags.logging.log_format,
            check: flags.check.is_on(),
        })
    }
}

fn endpoints(flags: &HealthFlags) -> Endpoints {
    let health = SocketAddr::new(flags.healthz_ip, flags.healthz_port);
    Endpoints { health: (flags.healthz_port != 0).then_some(health), metrics: flags.metrics_listen }
}

fn renew_margin(minutes: i64) -> Result<Duration, Refusal> {
    match u64::try_from(minutes) {
        Ok(positive) if MARGINS.contains(&minutes) => Ok(Duration::from_secs(60 * positive)),
        _ => Err(Refusal::value(format!(
            "Invalid subnet-lease-renew-margin option, out of acceptable range: it is {minutes}; give {} to {} \
             minutes",
            MARGINS.start(),
            MARGINS.end()
        ))),
    }
}

fn etcd_options(flags: EtcdFlags) -> Result<etcd::Options, Refusal> {
    Ok(etcd::Options {
        endpoints: flags.etcd_endpoints.split(',').map(str::to_owned).collect(),
        prefix: flags.etcd_prefix,
        key_file: flags.etcd_keyfile,
        cert_file: flags.etcd_certfile,
        ca_file: flags.etcd_cafile,
        username: flags.etcd_username,
        password: match flags.etcd_password_file {
            Some(path) => Some(password_in(path)?),
            None => flags.etcd_password.map(Password::Literal),
        },
    })
}

/// A password file that cannot be used now is refused now.
fn password_in(path: PathBuf) -> Result<Password, Refusal> {
    let told = format!("cannot take the password from --etcd-password-file {}", path.display());
    let password = Password::File(path);
    password.read().map_err(|error| Refusal::value(format!("{told}: {error}")))?;
    Ok(password)
}
