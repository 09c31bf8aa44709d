//! From a command line to a host that forwards.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flannel_common::flow::FastPath;
use flannel_common::{Mac, Vni};
use flannel_control::lease::{AcquireConfig, AddressClaim, Identity, LeaseState, LeaseTask, Pool};
use flannel_control::peers::{DeletionGuard, PeerTable, Site};
use flannel_control::reconcile::{Announcement, Memory, Node, Prepared, Reconciler};
use flannel_control::remembered::{Own, Remembered};
use flannel_control::subnet_file::{Previous, SubnetFile};
use flannel_control::{Last, Metrics, backend, join};
use flannel_datapath::{Approver, PinDir, Unavailable};
use flannel_model::backend::Kind;
use flannel_model::config::{BackendConfig, NetworkConfig};
use flannel_model::error::Chain;
use flannel_model::lease::EtcdLeaseId;
use flannel_model::underlay::Underlay;
use flannel_net::{Netlink, interface};
use flannel_observe::{Condition, Vitals};
use flannel_registry::etcd::Etcd;
use ipnetwork::Ipv4Network;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::error::DaemonError;
use super::exclusive::Exclusive;
use super::rules::RuleKeeper;
use super::{Pending, configuration, programs, signals};
use crate::cli::Options;
use flannel_host::{Host, Settings};

/// For so long a host that remembers the network waits for etcd.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host that forwards, and what keeps it so.
pub(super) struct Started {
    pub(super) reconciler: Reconciler<Etcd, Host>,
    pub(super) lease_task: LeaseTask<Etcd>,
    pub(super) address_claim: AddressClaim<Etcd>,
    pub(super) lease_state: watch::Receiver<LeaseState>,
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
    let releases = signals::hangups()?;
    let netlink = Netlink::open()?;
    let mut exclusive = vec![Exclusive::network(&options.etcd.prefix).await?];
    let pins = match unavailable {
        None => Some(Arc::new(PinDir::open(&options.pin_dir)?)),
        Some(_) => None,
    };
    let kernel = Host::open(netlink.clone(), settings(&options, pins))?;
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
    let address_claim = AddressClaim::claim(registry.clone(), identity.clone(), underlay.public_ip).await?;
    if let Some(device) = backend_config.device_name() {
        exclusive.push(Exclusive::device(&device).await?);
    }
    let former_mac =
        remembered.as_ref().and_then(|remembered| remembered.own.vtep_mac_at(underlay.public_ip));
    let backend = backend::of(&backend_config);
    let prepared = Prepared::new(kernel, backend, underlay.clone(), former_mac).await;
    let prepared = prepared.map_err(DaemonError::Prepare)?;

    let wanted = wanted_lease(&options, config, &prepared, remembered.as_ref())?;
    // Who has waited for the configuration in vain need not wait for etcd once more.
    let patience = if configuration.is_remembered { Duration::ZERO } else { PATIENCE };
    let last = remembered.as_ref().map(|remembered| Last { own: &remembered.own, patience });
    let (lease_task, lease) = join(&registry, options.lease, &wanted, last).await?;
    let lease_task = lease_task.counting(metrics.leases.clone());
    pending.lease.meet();
    let subnet = lease.state().borrow().lease.subnet;
    let (remembered, former) = match remembered {
        Some(remembered) if remembered.own.subnet != subnet => (None, Some(remembered)),
        remembered => (remembered, None),
    };
    let file = SubnetFile {
        network: config.network,
        subnet,
        mtu: prepared.backend().mtu(prepared.links()),
        ip_masq: options.rules.masquerade,
    };
    let vtep = backend::vtep(prepared.backend(), prepared.links().device.as_ref());
    let mut peers = PeerTable::new(site(
        &options.etcd.endpoints,
        config,
        (prepared.backend().kind(), vtep),
        &underlay,
        subnet,
        gateway,
    ))
    .counting(metrics.leases.clone());
    let known = remembered.as_ref().map(|remembered| remembered.snapshot(prepared.backend().kind()));
    let network = config.network;
    let mut memory = Memory::new(Box::new(options.state_file.clone()), identity, configuration.json);
    let rules =
        RuleKeeper::start(&options.rules, &options.etcd.prefix, config, subnet, netlink.clone()).await?;
    let node = Node::start(prepared, network, subnet).await.map_err(DaemonError::State)?;
    let approver = if unavailable.is_none() { approver(options.fast_path, &options.pin_dir) } else { None };
    pending.datapath.meet();

    let lease_state = lease.state();
    let announcement = Announcement { lease, file, place: Box::new(options.subnet_file.clone()) };
    if let Some(former) = former {
        memory.begin(former, Own::of(&lease_state.borrow().lease, vtep.map(|(_, mac)| mac)));
    }
    announcement.write_file()?;
    pending.subnet_file.meet();
    let known = known.map(|known| peers.apply_snapshot(&known));
    let deletion_guard = DeletionGuard::new(options.deletion_policy);
    let reconciler = Reconciler {
        registry,
        announcement,
        node,
        peers,
        known,
        deletion_guard,
        memory,
        vitals: vitals.clone(),
        metrics: metrics.reconcile.clone(),
        etcd_metrics: metrics.etcd.clone(),
        in_place: pending.datapath,
        synced,
        releases,
    };
    Ok(Started {
        reconciler,
        lease_task,
        address_claim,
        lease_state,
        subnet_file: options.subnet_file,
        listing: pending.listing,
        rules,
        approver,
        exclusive,
        marker,
    })
}

fn settings(options: &Options, pins: Option<Arc<PinDir>>) -> Settings {
    Settings {
        interface: options.interface.clone(),
        pins,
        hook: options.hook,
        program_settings: options.program_settings,
        guard: options.guard,
        fast_path: options.fast_path,
        copy_dscp: options.copy_dscp,
        pod_bridges: options.pod_bridges.clone(),
    }
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
    prepared: &Prepared<Host>,
    remembered: Option<&Remembered>,
) -> Result<AcquireConfig, DaemonError> {
    // The subnet file does not outlive a reboot where it stands in /run.
    let previous = Previous::read(&options.subnet_file)?.and_then(|file| file.previous_subnet());
    Ok(AcquireConfig {
        pool: Pool::new(config.subnet_min, config.subnet_max, config.subnet_len)?,
        attributes: prepared.attributes(),
        previous: previous.or(remembered.map(|remembered| remembered.own.subnet)),
        former_term: remembered.and_then(|remembered| EtcdLeaseId::from_id(remembered.own.term?)),
        ttl: options.lease.ttl,
    })
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
