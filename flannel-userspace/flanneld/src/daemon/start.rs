//! From a command line to a host that forwards.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flannel_common::flow::FastPath;
use flannel_common::{Mac, Vni};
use flannel_control::Metrics;
use flannel_control::backend::Backend;
use flannel_control::lease::{
    AcquireConfig, AcquireError, AddressClaim, Identity, LeaseHandle, LeaseState, LeaseTask, OwnLease, Pool,
    acquire,
};
use flannel_control::pauses::growing;
use flannel_control::peers::{DeletionGuard, PeerTable, Site};
use flannel_control::reconcile::{Announcement, KernelState, Memory, NodeContext, Reconciler};
use flannel_control::remembered::Remembered;
use flannel_control::subnet_file::{Previous, SubnetFile};
use flannel_datapath::{Approver, PinDir, Unavailable};
use flannel_model::backend::Kind;
use flannel_model::config::{BackendConfig, NetworkConfig};
use flannel_model::error::Chain;
use flannel_model::underlay::Underlay;
use flannel_net::{Monitor, Netlink, interface};
use flannel_observe::{Condition, Vitals};
use flannel_registry::RegistryError;
use flannel_registry::etcd::Etcd;
use ipnetwork::Ipv4Network;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::error::DaemonError;
use super::exclusive::Exclusive;
use super::report::LogThrottle;
use super::rules::RuleKeeper;
use super::{Pending, configuration, programs, signals};
use crate::cli::Options;

/// Pauses between attempts to get a lease from a registry that fails: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// For so long a host that remembers the network waits for etcd.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host that forwards, and what keeps it so.
pub(super) struct Started {
    pub(super) reconciler: Reconciler<Etcd>,
    pub(super) hold: LeaseTask<Etcd>,
    pub(super) presence: AddressClaim<Etcd>,
    pub(super) held: watch::Receiver<LeaseState>,
    pub(super) subnet_file: PathBuf,
    /// Met when the first listing is applied.
    pub(super) listing: Condition,
    pub(super) rules: RuleKeeper,
    /// Nothing where no connections are to be shortened.
    pub(super) approver: Option<Approver>,
    /// What only one daemon may have.
    pub(super) exclusive: Vec<Exclusive>,
    /// What a daemon without programs is found by.
    pub(super) marker: Option<PinDir>,
}

/// The order is stock flannel's: configuration, interface, device, lease, datapath, subnet file. The pin
/// directory comes before all that, for a second daemon must not touch what the first one holds.
pub(super) async fn start(
    options: Options,
    vitals: &Vitals,
    metrics: &Metrics,
    pending: Pending,
    unavailable: Option<Unavailable>,
    synced: oneshot::Sender<()>,
) -> Result<Started, DaemonError> {
    let hangups = signals::hangups()?;
    let netlink = Netlink::open()?;
    let monitor = Monitor::open()?;
    let mut exclusive = vec![Exclusive::network(&options.etcd.prefix).await?];
    let pins = match unavailable {
        None => Some(Arc::new(PinDir::open(&options.pin_dir)?)),
        Some(_) => None,
    };
    let registry =
        Etcd::measured(options.etcd.clone(), metrics.etcd.clone()).map_err(DaemonError::Registry)?;
    let remembered = remember(&options);
    let configuration = match &remembered {
        Some(remembered) => configuration::wait_for_or_remember(&registry, remembered, PATIENCE).await?,
        None => configuration::wait_for(&registry).await?,
    };
    let underlay = interface::choose(&netlink, &options.interface).await?;
    let gateway = netlink.default_route().await?.and_then(|route| route.via);
    let identity = Identity::of(underlay.mac);
    // What another machine remembers, or what is remembered of another configuration, is worth nothing.
    let is_ours = |remembered: &Remembered| remembered.is_of(&identity, &configuration.json);
    let (configuration, remembered) = match remembered.filter(is_ours) {
        Some(remembered) => (configuration, Some(remembered)),
        None if configuration.is_remembered => (configuration::wait_for(&registry).await?, None),
        None => (configuration, None),
    };
    let config = &configuration.network;
    info!(
        network = %config.network, subnet_len = config.subnet_len, min = %config.subnet_min,
        max = %config.subnet_max, backend = config.backend.kind, "network configuration"
    );
    pending.configuration.meet();
    let backend_config = BackendConfig::parse(&config.backend)?;
    let marker = match &unavailable {
        None => {
            let kind = backend_config.kind();
            flannel_datapath::require(kind.for_programs(), options.fast_path, options.program_settings)?;
            programs::limit(kind, options.fast_path, &vitals.conditions);
            None
        }
        Some(reason) => {
            programs::go_without(reason, backend_config.kind(), &options.pin_dir, &vitals.conditions)?
        }
    };
    let presence = AddressClaim::claim(registry.clone(), identity.clone(), underlay.public_ip).await?;
    if let Some(device) = backend_config.device_name() {
        exclusive.push(Exclusive::device(&device).await?);
    }
    let former_mac =
        remembered.as_ref().and_then(|remembered| remembered.own.vtep_mac_at(underlay.public_ip));
    let backend = Backend::prepare(&backend_config, &netlink, &underlay, former_mac).await?;

    let wanted = wanted_lease(&options, config, &backend, &underlay, remembered.as_ref())?;
    // Who has waited for the configuration in vain need not wait for etcd once more.
    let patience = if configuration.is_remembered { Duration::ZERO } else { PATIENCE };
    let patience = remembered.as_ref().map(|_| patience);
    let (hold, holder) = match acquire_lease(&registry, &wanted, patience).await? {
        Some(own) => LeaseTask::new(registry.clone(), options.lease, own),
        None => resume(&registry, &options, &wanted, remembered.as_ref())?,
    };
    let hold = hold.counting(metrics.leases.clone());
    pending.lease.meet();
    let subnet = holder.held().borrow().lease.subnet;
    let remembered = remembered.filter(|remembered| remembered.own.subnet == subnet);
    let file =
        SubnetFile { network: config.network, subnet, mtu: backend.mtu(), ip_masq: options.rules.masquerade };
    let mut peers = PeerTable::new(site(
        &options.etcd.endpoints,
        config,
        (backend.kind(), backend.vtep()),
        &underlay,
        subnet,
        gateway,
    ))
    .counting(metrics.leases.clone());
    let known = remembered.as_ref().map(|remembered| remembered.snapshot(backend.kind()));
    let network = config.network;
    let memory = Memory::new(options.state_file.clone(), identity, configuration.json);
    let rules =
        RuleKeeper::start(&options.rules, &options.etcd.prefix, config, subnet, netlink.clone()).await?;
    let state = KernelState::start(NodeContext {
        netlink,
        backend,
        backend_config,
        underlay,
        interface: options.interface,
        network,
        subnet,
        pins,
        hook: options.hook,
        program_settings: options.program_settings,
        guard: options.guard,
        fast_path: options.fast_path,
        copy_dscp: options.copy_dscp,
        pod_bridges: options.pod_bridges,
    })
    .await?;
    let approver = if unavailable.is_none() { approver(options.fast_path, &options.pin_dir) } else { None };
    pending.datapath.meet();

    let held = holder.held();
    let announcement = Announcement { holder, file, path: options.subnet_file.clone() };
    announcement.write_file()?;
    pending.subnet_file.meet();
    let known = known.map(|known| peers.apply_snapshot(&known));
    let deletion_guard = DeletionGuard::new(options.deletion_policy);
    let reconciler = Reconciler {
        registry,
        announcement,
        state,
        monitor,
        peers,
        known,
        deletion_guard,
        memory,
        vitals: vitals.clone(),
        metrics: metrics.reconcile.clone(),
        etcd_metrics: metrics.etcd.clone(),
        in_place: pending.datapath,
        synced,
        hangups,
    };
    Ok(Started {
        reconciler,
        hold,
        presence,
        held,
        subnet_file: options.subnet_file,
        listing: pending.listing,
        rules,
        approver,
        exclusive,
        marker,
    })
}

/// Without it TCP connections take the long way.
fn approver(fast_path: FastPath, pin_dir: &Path) -> Option<Approver> {
    if fast_path != FastPath::Flow {
        return None;
    }
    Approver::open(pin_dir).inspect_err(|error| warn!("{}", Chain(error))).ok()
}

/// What is known from an earlier life. A file that cannot be read is none.
fn remember(options: &Options) -> Option<Remembered> {
    Remembered::read(&options.state_file).unwrap_or_else(|error| {
        warn!("{}", Chain(&error));
        None
    })
}

fn wanted_lease(
    options: &Options,
    config: &NetworkConfig,
    backend: &Backend,
    underlay: &Underlay,
    remembered: Option<&Remembered>,
) -> Result<AcquireConfig, DaemonError> {
    // The subnet file does not outlive a reboot where it stands in /run.
    let previous = Previous::read(&options.subnet_file)?.and_then(|file| file.previous_subnet());
    Ok(AcquireConfig {
        pool: Pool::new(config.subnet_min, config.subnet_max, config.subnet_len)?,
        attributes: backend.attributes(underlay.public_ip),
        previous: previous.or(remembered.map(|remembered| remembered.own.subnet)),
        ttl: options.lease.ttl,
    })
}

/// Acquires a lease, however long the registry takes to be there; nothing when it takes longer than `patience`, which
/// only has who remembers one.
async fn acquire_lease(
    registry: &Etcd,
    wanted: &AcquireConfig,
    patience: Option<Duration>,
) -> Result<Option<OwnLease>, DaemonError> {
    let start = Instant::now();
    let mut told = LogThrottle::default();
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let mut pauses = growing(RETRY);
    loop {
        match acquire(registry, wanted, &mut rng).await {
            Ok(own) => {
                let how = if own.reused { "reused" } else { "acquired" };
                let public_ip = wanted.attributes.public_ip;
                info!(subnet = %own.lease.subnet, %public_ip, "{how} the lease");
                return Ok(Some(own));
            }
            Err(AcquireError::Registry(error)) => {
                let is_over = patience.is_some_and(|patience| start.elapsed() > patience);
                if is_over && error.is_absence() {
                    return Ok(None);
                }
                let text = Chain(&error).to_string();
                if told.should_log(&text) {
                    warn!("cannot acquire a lease: {text}; trying again");
                }
                sleep(pauses.next().unwrap_or(RETRY.1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Goes on with the lease that was held last.
fn resume(
    registry: &Etcd,
    options: &Options,
    wanted: &AcquireConfig,
    remembered: Option<&Remembered>,
) -> Result<(LeaseTask<Etcd>, LeaseHandle), DaemonError> {
    let remembered = remembered.ok_or(DaemonError::Registry(RegistryError::NoEndpoint))?;
    let lease = remembered.lease(wanted.attributes.clone());
    warn!(subnet = %lease.subnet, "etcd is away: going on with the lease that was held last");
    Ok(LeaseTask::resume(registry.clone(), options.lease, lease, remembered.own.public_ip))
}

/// What leases are held against: `endpoints` are etcd's URLs, `backend` its kind and this host's VTEP.
pub fn site(
    endpoints: &[String],
    config: &NetworkConfig,
    (kind, vtep): (Kind, Option<(Vni, Mac)>),
    underlay: &Underlay,
    subnet: Ipv4Network,
    gateway: Option<Ipv4Addr>,
) -> Site {
    let endpoints = endpoints.iter().filter_map(|url| address_of(url));
    Site {
        network: config.network,
        subnet_len: config.subnet_len,
        subnet,
        addresses: vec![underlay.address, underlay.public_ip],
        kind,
        vtep,
        connected: underlay.networks.clone(),
        reserved: endpoints.chain(gateway).collect(),
    }
}

/// The address in an endpoint's URL, if it is one of IPv4 and not a name.
fn address_of(url: &str) -> Option<Ipv4Addr> {
    let rest = url.trim().split_once("://").map_or(url.trim(), |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    match host.parse().ok()? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::address_of;

    #[rstest]
    #[case::plain("http://192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::path("https://192.168.77.1:2379/", Some("192.168.77.1"))]
    #[case::no_scheme("192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::no_port("http://192.168.77.1", Some("192.168.77.1"))]
    #[case::name("http://etcd.example:2379", None)]
    #[case::ipv6("http://[fd00::1]:2379", None)]
    fn address_in_an_endpoint(#[case] url: &str, #[case] address: Option<&str>) {
        assert_eq!(address_of(url).map(|address| address.to_string()).as_deref(), address);
    }
}
