//! From a command line to a host that forwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flannel_cloud::{Keeper, Seen};
use flannel_common::flow::Bypass;
use flannel_control::Metrics;
use flannel_control::backend::Tunnel;
use flannel_control::backend::{self, Transition};
use flannel_control::configuration::{Follower, Served};
use flannel_control::identity::Identity;
use flannel_control::lease::{AddressClaim, Keeping, Last, LeaseOwner as _, LeaseState, Own};
use flannel_control::peers::{DeletionGuard, PeerTable, Site};
use flannel_control::reconcile::{Announcement, Memory, Node, Order, Prepared, Reconciler};
use flannel_control::remembered::Remembered;
use flannel_control::subnet_file::SubnetFile;
use flannel_datapath::{Approver, PinDir, Unavailable};
use flannel_model::config::NetworkConfig;
use flannel_model::error::Chain;
use flannel_model::family::{Family, PerFamily, Subnets};
use flannel_model::vxlan::Formats;
use flannel_net::interface::InterfaceError;
use flannel_net::rules::Concern;
use flannel_net::{Netlink, interface};
use flannel_observe::{Condition, Conditions, Vitals};
use flannel_registry::etcd::Etcd;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::cloud::{self, Cloud};
use super::error::DaemonError;
use super::leave::Presence;
use super::membership::Membership;
use super::others::OtherRulesKeeper;
use super::rules::RuleKeeper;
use super::surroundings::{Surroundings, Throttles};
use super::{Pending, configuration, programs};
use crate::cli::Options;
use flannel_host::{Host, Settings};

/// How long a host that remembers the network waits for etcd, however many members it asks in that time.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host that forwards, and the parts that keep it so.
pub(super) struct Started<L, C> {
    pub(super) reconciler: Reconciler<L, Host>,
    pub(super) follower: Follower<C>,
    /// The network's configuration.
    pub(super) served: Served,
    pub(super) lease_keeping: Keeping,
    /// None where there are no claims.
    pub(super) address_claim: Option<AddressClaim<Etcd>>,
    pub(super) lease_state: watch::Receiver<LeaseState>,
    /// What is taken away when the host leaves.
    pub(super) presence: Presence,
    pub(super) subnet_file: PathBuf,
    /// Met when the first listing is applied.
    pub(super) listing: Condition,
    pub(super) rules: RuleKeeper,
    pub(super) other_rules: OtherRulesKeeper,
    /// Keeps the route tables of the cloud, and what is seen of them, where the backend has one.
    pub(super) cloud: Option<(Keeper<L>, watch::Receiver<Option<Seen>>)>,
    pub(super) surroundings: Surroundings,
    /// None if no connection is to bypass the stack.
    pub(super) approver: Option<Approver>,
    /// By this lock a daemon without programs is found.
    pub(super) marker: Option<PinDir>,
}

/// What the loop tells the daemon, and is told.
pub(super) struct Ends {
    pub(super) synced: oneshot::Sender<()>,
    pub(super) orders: UnboundedReceiver<Order>,
}

/// The order is stock flannel's: configuration, interface, device, lease, datapath, subnet file. The pin directory
/// comes first, because a second daemon must not touch what the first one holds.
pub(super) async fn start<M: Membership>(
    membership: M,
    mut options: Options,
    vitals: &Vitals,
    metrics: &Metrics,
    pending: Pending,
    unavailable: Option<Unavailable>,
    Ends { synced, orders }: Ends,
) -> Result<Started<M::Leases, M::Config>, DaemonError> {
    let netlink = Netlink::open()?;
    let pins = match unavailable {
        None => Some(Arc::new(PinDir::open(&options.pin_dir)?)),
        Some(_) => None,
    };
    let remembered = remember(&options);
    let hints = membership.hints(remembered.as_ref().map(|_| PATIENCE)).await?;
    options.interface.public = hints.local.or(options.interface.public);
    let mut kernel = Host::open(netlink.clone(), settings(&options, pins, vitals))?;
    let registry = membership.config();
    let found = match &remembered {
        Some(remembered) => {
            configuration::wait_for_or_remember(registry, &vitals.conditions, remembered, PATIENCE).await?
        }
        None => configuration::wait_for(registry, &vitals.conditions).await?,
    };
    let underlay = interface::choose(&netlink, &options.interface).await?;
    kernel.find_uplinks(&underlay).await.map_err(DaemonError::Prepare)?;
    let gateway = netlink.default_route(Family::V4).await?.and_then(|route| route.via);
    let identity = Identity::of(underlay.mac);
    let last_formats = remembered.as_ref().filter(|remembered| remembered.is_by(&identity));
    let last_formats = last_formats.and_then(Remembered::last_formats);
    // A state file of another machine or configuration is ignored.
    let is_ours = |remembered: &Remembered| remembered.is_of(&identity, &found.configuration.text);
    let (found, remembered) = match remembered.filter(is_ours) {
        Some(remembered) => (found, Some(remembered)),
        None if found.is_remembered => (configuration::wait_for(registry, &vitals.conditions).await?, None),
        None => (found, None),
    };
    let configuration::Found { configuration, is_remembered } = found;
    let (config, backend_config) = (&configuration.network, configuration.backend.clone());
    for family in config.families.values() {
        info!(
            network = %family.network, subnet_len = family.subnet_len, min = %family.subnet_min,
            max = %family.subnet_max, backend = config.backend.kind, "network configuration"
        );
    }
    pending.configuration.meet();
    let cluster = cloud::cluster(&options.etcd.prefix, config);
    let cloud = Cloud::of(&backend_config, options.cloud_resync, &vitals.conditions, &metrics.cloud)?;
    let marker = match &unavailable {
        None => {
            let kind = backend_config.kind();
            flannel_datapath::require(kind.for_programs(), options.bypass, options.program_settings)?;
            programs::limit(kind, options.bypass, &vitals.conditions);
            None
        }
        Some(reason) => {
            programs::go_without(reason, backend_config.kind(), &options.pin_dir, &vitals.conditions)?
        }
    };
    let public_ip =
        underlay.public.first().ok_or_else(|| InterfaceError::NoAddress(underlay.name.clone()))?;
    let address_claim = match (membership.claim(&identity, public_ip), &remembered) {
        (None, _) => None,
        (Some(claim), Some(_)) if is_remembered => Some(claim),
        (Some(claim), remembered) => Some(claim.made_within(remembered.as_ref().map(|_| PATIENCE)).await?),
    };
    let own = remembered.as_ref().map(|remembered| &remembered.own);
    let former_macs =
        own.map_or(PerFamily::NONE, |own| own.vtep_macs_at(&underlay.public)).or(hints.vtep_macs);
    // The configuration may have changed while no daemon ran.
    let formats = backend_config
        .vxlan_format()
        .map(|wanted| last_formats.map_or(Formats::only(wanted), |last| last.toward(wanted)));
    let (in_force, former) = match formats {
        Some(formats) => (backend_config.with_vxlan_format(formats.present), formats.former),
        None => (backend_config.clone(), None),
    };
    let with_former = former.map(|former| in_force.with_vxlan_format(former));
    for (family, _) in config.families.iter() {
        for device in [Some(&in_force), with_former.as_ref()].into_iter().flatten() {
            if let Some(device) = device.device_name(family) {
                kernel.claim_device(&device).await?;
            }
        }
    }
    let backend = backend::between(&in_force, Transition { former, ..Transition::default() });
    let prepared = Prepared::new(kernel, backend, underlay.clone(), former_macs).await;
    let prepared = prepared.map_err(DaemonError::Prepare)?;

    let owner = membership.owner(config, own)?;
    // After waiting for the configuration in vain it need not wait for etcd once more. A listing takes its time.
    let patience = if is_remembered { Duration::ZERO } else { 2 * PATIENCE };
    let last = own.map(|own| Last { own, patience });
    let (lease, lease_keeping) = owner.acquire(prepared.attributes(), last).await?;
    pending.lease.meet();
    let lease_state = lease.state();
    let (networks, subnets) = (config.networks(), lease_state.borrow().lease.subnets);
    let file = SubnetFile {
        networks,
        subnets,
        mtu: prepared.backend().mtu(prepared.links()),
        ip_masq: options.rules.masquerade,
    };
    let vteps = backend::vteps(prepared.backend(), prepared.links());
    let kind = prepared.backend().kind();
    let site = Site::new(&membership.endpoints(), config, (kind, vteps), &underlay, &subnets, gateway);
    let mut peers = PeerTable::new(site).counting(metrics.leases.clone());
    let presence = Presence { claims: membership.claims(), identity: identity.clone(), lease: lease.clone() };
    let mut memory =
        Memory::new(Box::new(options.state_file.clone()), identity, configuration.text.clone()).on_disk();
    let tunnel = prepared.backend().tunnel();
    let other_rules = other_rules(&options, config, &prepared, &subnets, &vitals.conditions);
    let conditions = vitals.conditions.clone();
    let (follower, served) =
        Follower::new(registry.clone(), configuration, conditions, metrics.configuration.clone());
    let rules =
        RuleKeeper::start(&options, served.clone(), tunnel, &subnets, netlink.clone(), &vitals.conditions)
            .await?;
    let underlay = watch::Sender::new(underlay);
    let cloud = cloud.map(|cloud| {
        let seen = cloud.seen();
        (
            cloud.keeper(membership.leases(), networks, cluster, lease_state.clone(), underlay.subscribe()),
            seen,
        )
    });
    let surroundings = Surroundings {
        netlink,
        networks,
        subnets,
        forwarding: forwarding_interfaces(&options, &prepared),
        pod_bridges: options.pod_bridges.clone(),
        sets_forwarding: options.ip_forward,
        forwards: pending.forwarding,
        addresses: vitals.conditions.limitation("own addresses"),
        throttles: Throttles::default(),
    };
    let node = Node::start(prepared, networks, subnets).await.map_err(DaemonError::State)?;
    if let Some(pins) = &marker {
        programs::give_up(pins)?;
    }
    let approver = if unavailable.is_none() { approver(options.bypass, &options.pin_dir) } else { None };
    pending.datapath.meet();

    let announcement = Announcement { lease, file, place: Box::new(options.subnet_file.clone()), underlay };
    let remembered = memory.begin(remembered, Own::of(&lease_state.borrow(), vteps));
    announcement.write_file()?;
    pending.subnet_file.meet();
    let known = remembered.map(|remembered| peers.apply_snapshot(&remembered.snapshot(kind)));
    let deletion_guard = DeletionGuard::new(options.deletion_policy);
    let reconciler = Reconciler {
        registry: membership.leases(),
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
        orders,
        configuration: served.clone(),
        formats,
    };
    Ok(Started {
        reconciler,
        follower,
        served,
        lease_keeping,
        address_claim,
        lease_state,
        presence,
        subnet_file: options.subnet_file,
        listing: pending.listing,
        rules,
        other_rules,
        cloud,
        surroundings,
        approver,
        marker,
    })
}

fn settings(options: &Options, pins: Option<Arc<PinDir>>, vitals: &Vitals) -> Settings {
    Settings {
        interface: options.interface.clone(),
        pins,
        hook: options.hook,
        program_settings: options.program_settings,
        guard: options.guard,
        bypass: options.bypass,
        copy_dscp: options.copy_dscp,
        pod_bridges: options.pod_bridges.clone(),
        policy_limitation: vitals.conditions.limitation("tunnel programs"),
    }
}

/// Looks for rules of others that concern this host's subnets.
fn other_rules(
    options: &Options,
    config: &NetworkConfig,
    prepared: &Prepared<Host>,
    subnets: &Subnets,
    conditions: &Conditions,
) -> OtherRulesKeeper {
    let (backend, networks) = (prepared.backend(), config.networks());
    let concern = |family| {
        Some(Concern {
            port: backend.tunnel().map(Tunnel::port),
            network: networks.get(family)?,
            subnet: subnets.get(family)?,
            bridges: options.pod_bridges.clone(),
            devices: prepared.links().devices.values().map(|device| device.name.clone()).collect(),
            forwards: options.rules.forward && backend.kind().forwards(),
        })
    };
    let PerFamily { v4, v6 } = super::rules::rules(options, config, backend.tunnel(), subnets);
    let watched = PerFamily {
        v4: v4.and_then(|rules| Some((rules, concern(Family::V4)?))),
        v6: v6.and_then(|rules| Some((rules, concern(Family::V6)?))),
    };
    OtherRulesKeeper::new(watched, conditions)
}

/// The interfaces by which packets come that this host forwards for its pods.
fn forwarding_interfaces(options: &Options, prepared: &Prepared<Host>) -> Vec<String> {
    let (backend, links) = (prepared.backend(), prepared.links());
    if !backend.kind().forwards() {
        return Vec::new();
    }
    let underlay = backend.is_plain().then(|| links.underlay.name.clone());
    let devices = links.devices.values().map(|device| device.name.clone());
    options.pod_bridges.iter().cloned().chain(devices).chain(underlay).collect()
}

/// Without it TCP connections go through the stack.
fn approver(bypass: Bypass, pin_dir: &Path) -> Option<Approver> {
    if bypass != Bypass::Flow {
        return None;
    }
    Approver::open(pin_dir).inspect_err(|error| warn!("{}", Chain(error))).ok()
}

/// What is known from an earlier run. A file that cannot be read counts as absent.
fn remember(options: &Options) -> Option<Remembered> {
    Remembered::read(&options.state_file).unwrap_or_else(|error| {
        warn!("{}", Chain(&error));
        None
    })
}
