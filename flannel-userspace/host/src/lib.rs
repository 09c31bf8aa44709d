//! This host's kernel for the control plane: the tables of netlink, flannel's device, and the programs with their maps, as
//! one set of objects.
//!
//! The bridge from `control` to `net` and `datapath` lives here. What should be in the kernel does not.

mod obey;
mod policies;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use flannel_common::flow::Bypass;
use flannel_common::maps::{Carrier, Guard, Node, Peer, PeerCount};
use flannel_common::wire::{UdpStack, VxlanStack};
use flannel_common::{Ip4, Mac, Vni};
use flannel_control::backend::Tunnel;
use flannel_control::exclusive::{Exclusive, ExclusiveError};
use flannel_control::kernel::{Heard, Kernel, KernelError, NodeContext};
use flannel_datapath::{
    Arrival, Datapath, DatapathError, Format, HookChoice, PeerEntry, PinDir, ProgramSettings, Spec, Support,
    Tables, monotonic_nanoseconds,
};
use flannel_model::backend::Kind;
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::device::{Device, DeviceSpec};
use flannel_model::error::Chain;
use flannel_model::family::{Family, PerFamily, Subnets};
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::VxlanFormat;
use flannel_net::device::DeviceError;
use flannel_net::interface::InterfaceError;
use flannel_net::{Monitor, Netlink, ObjectError, Objects, OpenError, Uplink, interface};
use flannel_observe::Limitation;
use futures::{StreamExt as _, stream};
use ipnetwork::{IpNetwork, Ipv4Network};
use nix::errno::Errno;
use policies::Policies;
use tracing::warn;

/// How this host's kernel is used.
#[derive(Debug)]
pub struct Settings {
    /// How the interface of the underlay is chosen.
    pub interface: InterfaceOptions,
    /// Where programs and maps are pinned; `None` if the host takes no programs, so that the kernel forwards alone.
    pub pins: Option<Arc<PinDir>>,
    /// Where programs are attached.
    pub hook: HookChoice,
    /// What programs do besides.
    pub program_settings: ProgramSettings,
    /// How strictly the guard checks packets out of the tunnel.
    pub guard: Guard,
    /// Which flows bypass the stack.
    pub bypass: Bypass,
    /// Whether the DSCP of inner packets is copied to outer ones.
    pub copy_dscp: bool,
    /// Names of the bridges with pods behind their ports.
    pub pod_bridges: Vec<String>,
    /// Told where the stack carries the tunnel's packets, because a policy of IPsec concerns them.
    pub policy_limitation: Limitation,
}

/// This host's kernel: its own tables and the programs.
pub struct Host {
    netlink: Netlink,
    monitor: Monitor,
    settings: Settings,
    objects: Objects,
    /// The whole networks.
    networks: Subnets,
    /// Indexes of flannel's devices.
    devices: PerFamily<u32>,
    /// `None` if the kernel forwards alone, and before the first programs are loaded.
    datapath: Option<Datapath>,
    /// When programs come to a device that has none.
    arrival: Arrival,
    policies: Policies,
    /// What the datapath would be if no policy concerned it.
    wanted: Option<Spec>,
    carrier: Carrier,
    /// Whether programs need the ports of pods.
    serves_pods: bool,
    /// The interfaces by which packets of the tunnel arrive.
    uplinks: BTreeSet<Uplink>,
    /// Those among them by which packets have left for peers, as the routing table has it.
    ways: BTreeSet<u32>,
    /// What packets that skip the stack pass by, besides pods' ports and bridges.
    skipped: Skipped,
    /// The devices that only this daemon may have.
    claims: BTreeMap<String, Exclusive>,
}

/// Interfaces whose queues and filters see nothing of packets that skip the stack.
#[derive(Clone, Copy, Debug, Default)]
struct Skipped {
    /// Index of the flannel device.
    device: Option<u32>,
    /// Index of the underlay, where packets arrive there that a route leads to. Those of a tunnel are taken out of it
    /// there in any case.
    underlay: Option<u32>,
}

impl Host {
    /// The kernel of the calling thread's network namespace, which is also `netlink`'s. Changes in it are received from
    /// now on.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn open(netlink: Netlink, settings: Settings) -> Result<Self, OpenError> {
        let monitor = Monitor::open()?;
        let objects = Objects::new(netlink.clone(), PerFamily::NONE);
        let policies = Policies::open(settings.policy_limitation.clone()).map_err(OpenError::from)?;
        Ok(Self {
            netlink,
            monitor,
            settings,
            objects,
            networks: Subnets::NONE,
            devices: PerFamily::NONE,
            datapath: None,
            arrival: Arrival::AtOnce,
            policies,
            wanted: None,
            carrier: Carrier::Programs,
            serves_pods: false,
            uplinks: BTreeSet::new(),
            ways: BTreeSet::new(),
            skipped: Skipped::default(),
            claims: BTreeMap::new(),
        })
    }

    /// Has the device called `name` for this daemon alone, as long as that runs.
    ///
    /// # Errors
    /// Another daemon has it.
    pub async fn claim_device(&mut self, name: &str) -> Result<(), ExclusiveError> {
        if !self.claims.contains_key(name) {
            self.claims.insert(name.to_owned(), Exclusive::device(name).await?);
        }
        Ok(())
    }

    /// Which flows bypass the stack. Without peers that programs know there is no flow, and without `bpf_check_mtu` no way
    /// to check its packets.
    fn bypass(&self, kind: Kind) -> Bypass {
        match kind {
            _ if !kind.has_programs() => Bypass::Off,
            _ if !Support::of_this_kernel().check_mtu => Bypass::Off,
            _ => self.settings.bypass,
        }
    }

    /// What the datapath should be.
    fn spec(&self, context: &NodeContext, links: &Links) -> Spec {
        let format = match context.backend.tunnel() {
            Some(Tunnel::Udp { .. }) => {
                let segmenter = links.devices.v4.as_ref().and_then(|device| device.segmenter);
                Some(Format::Udp { segmented: segmenter.map_or(0, |segmenter| segmenter.exit) })
            }
            Some(Tunnel::Vxlan { .. }) => Some(Format::Vxlan),
            None => None,
        };
        let Settings { hook, program_settings, .. } = self.settings;
        let routes = context.backend.depends_on_hop();
        let (node, uplinks) = (self.node(context, links), self.uplinks.clone());
        Spec { format, routes, node, uplinks, hook, program_settings }
    }

    fn node(&self, context: &NodeContext, links: &Links) -> Node {
        let Settings { guard, copy_dscp, .. } = self.settings;
        let NodeContext { backend, subnets, .. } = context;
        let Links { underlay, devices, former: former_devices } = links;
        let former = backend.formats().and_then(|formats| formats.former);
        let device = devices.v4.as_ref();
        let subnet = subnets.v4;
        let tunnel = backend.tunnel();
        let segmenter = device.and_then(|device| device.segmenter);
        Node {
            backend: backend.kind().number(),
            device: links.device_index(Family::V4).unwrap_or(0),
            underlay: underlay.index,
            segmenter: segmenter.map_or(0, |segmenter| segmenter.entrance),
            local_ip: underlay.addresses.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            subnet: subnet.map_or(Ipv4Addr::UNSPECIFIED, |subnet| subnet.network()).into(),
            netmask: Ip4::netmask(subnet.map_or(0, Ipv4Network::prefix)),
            vni: tunnel.map_or(0, Tunnel::vni),
            port: tunnel.map_or(0, |tunnel| tunnel.port().into()),
            guard: guard as u32,
            bypass: self.bypass(backend.kind()) as u32,
            copied_tos: if copy_dscp { Node::DSCP } else { 0 },
            flow_seed: rand::random(),
            outer_mtu: tunnel.map_or(0, |tunnel| context.backend.mtu(links) + overhead(tunnel)),
            vrf: underlay.vrf.unwrap_or(0),
            device_mac: device.map_or(Mac::ZERO, |device| device.mac),
            carrier: Carrier::Programs as u16,
            former_vni: former.map_or(0, |former| former.vni.get()),
            former_port: former.map_or(0, |former| former.port.into()),
            former_device: former_devices.v4.as_ref().map_or(0, |device| device.index),
            reserved: 0,
        }
    }
}

/// Receives packets of the tunnel.
impl Host {
    /// Finds the interfaces by which packets of the tunnel arrive, `underlay` among them: before programs are attached for
    /// the first time, because those of an earlier daemon are detached elsewhere.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn find_uplinks(&mut self, underlay: &Underlay) -> Result<(), KernelError> {
        if self.datapath.is_none()
            && let Some(pins) = &self.settings.pins
        {
            let peers = Tables::open_to_read(pins.path()).and_then(|tables| tables.raw_peers());
            self.ways = ways_of(&peers.unwrap_or_default());
        }
        let uplinks = self.netlink.uplinks(underlay.index, &self.ways, &self.settings.pod_bridges).await;
        self.uplinks = uplinks.map_err(refused)?;
        Ok(())
    }
}

impl Kernel for Host {
    async fn underlay(&mut self, current: Option<&Underlay>) -> Result<Underlay, KernelError> {
        let options = &self.settings.interface;
        let underlay = match current {
            Some(current) => interface::follow(&self.netlink, options, current).await,
            None => interface::choose(&self.netlink, options).await,
        };
        let underlay = underlay.map_err(|error: InterfaceError| KernelError::NoUnderlay(error.into()))?;
        self.find_uplinks(&underlay).await?;
        Ok(underlay)
    }

    async fn find_device(&mut self, spec: &DeviceSpec) -> Result<Option<Device>, KernelError> {
        let found = self.netlink.find_device(spec).await.map_err(refused)?;
        // By a device that is there before the first programs, the kernel forwards: stock flannel's, or that of a daemon
        // without eBPF.
        if found.is_some() && self.datapath.is_none() {
            self.arrival = Arrival::WithPeers;
        }
        Ok(found)
    }

    async fn ensure_device(&mut self, spec: &DeviceSpec) -> Result<Device, KernelError> {
        let ensured = self.netlink.ensure_device(spec).await;
        ensured.map_err(|error: DeviceError| KernelError::refused(error))
    }

    async fn claim(&mut self, name: &str) -> Result<(), KernelError> {
        self.claim_device(name).await.map_err(KernelError::refused)
    }

    async fn keep_former(
        &mut self,
        former: &DeviceSpec,
        present: &DeviceSpec,
    ) -> Result<Device, KernelError> {
        let (DeviceSpec::Vxlan(former), DeviceSpec::Vxlan(present)) = (former, present) else {
            return self.ensure_device(former).await;
        };
        let kept = self.netlink.keep_former(former, present).await.map_err(KernelError::refused)?;
        // Programs let what comes by it enter by the present device.
        if !self.has_programs()
            && let Err(error) = self.netlink.accept_ways_back_elsewhere(&kept.name)
        {
            warn!(error = %Chain(&error), "packets of peers that have not gone over may be dropped");
        }
        Ok(kept)
    }

    async fn remove_former(&mut self, former: &Device) -> Result<(), KernelError> {
        let link = self.netlink.link_by_index(former.index).await.map_err(refused)?;
        // Somebody may have renamed it, or the index be another one's.
        if link.is_none_or(|link| link.name != former.name) {
            return Ok(());
        }
        self.netlink.remove_device(&former.name).await.map(drop).map_err(KernelError::refused)
    }

    fn heard(&mut self, subnets: &Subnets) -> Result<Vec<Heard>, KernelError> {
        let (Some(datapath), Some(own)) = (&mut self.datapath, subnets.v4) else { return Ok(Vec::new()) };
        let tables = datapath.tables();
        let counts = tables.peer_counts().map_err(KernelError::refused)?;
        let (peers, now) = (tables.peers().map_err(KernelError::refused)?, monotonic_nanoseconds());
        // Only the programs at TC that see Ethernet headers tell formats apart.
        let is_at_tc = matches!(self.settings.hook, HookChoice::Auto | HookChoice::Tcx | HookChoice::Clsact);
        let tells = is_at_tc && self.uplinks.iter().all(|uplink| uplink.has_ethernet);
        let ago = |at: u64| (tells && at != 0).then(|| Duration::from_nanos(now.saturating_sub(at)));
        let heard = |(address, entry): (Ipv4Addr, PeerEntry)| {
            let subnet = Ipv4Network::new(address, own.prefix()).ok()?.into();
            let PeerCount { last_seen, last_former, .. } = counts.get(&address).copied().unwrap_or_default();
            Some(Heard { subnet, last: ago(last_seen), former: ago(last_former), sent: vxlan_format(entry) })
        };
        Ok(peers.into_iter().filter_map(heard).collect())
    }

    async fn ensure_address(
        &mut self,
        device: &Device,
        own: IpAddr,
        network: IpNetwork,
    ) -> Result<(), KernelError> {
        self.netlink.ensure_address(device, own, network).await.map_err(refused)
    }

    fn build(&mut self, context: &NodeContext, links: &Links) -> Result<(), KernelError> {
        let kind = context.backend.kind();
        let families = context.subnets.iter().map(Family::from);
        let mut objects_of = PerFamily::NONE;
        families.for_each(|family| objects_of.set(family, Some(links.device_index(family))));
        self.objects = Objects::new(self.netlink.clone(), objects_of);
        self.networks = context.networks;
        self.devices = links.devices.clone().map(|_, device| device.index);
        self.serves_pods = !links.devices.is_empty() || self.bypass(kind) != Bypass::Off;
        self.skipped = Skipped {
            device: links.device_index(Family::V4),
            underlay: context.backend.depends_on_hop().then_some(links.underlay.index),
        };
        let Some(pins) = self.settings.pins.clone() else { return Ok(()) };
        let spec = self.spec(context, links);
        self.policies.read();
        // Programs must never carry what a policy concerns, so peers of an earlier daemon are looked at first.
        let known = match self.policies.are_none() {
            true => BTreeMap::new(),
            false => Tables::open_to_read(pins.path()).and_then(|tables| tables.peers()).unwrap_or_default(),
        };
        self.load(&pins, &spec, known.into_values().map(|peer| peer.public_ip.into()))?;
        self.wanted = Some(spec);
        Ok(())
    }

    fn hold(&mut self) -> Result<(), KernelError> {
        self.policies.read();
        let against = self.obey(&[])?;
        let held = self.datapath.as_mut().map_or(Ok(()), |datapath| datapath.hold(&self.uplinks));
        held.map_err(KernelError::refused)?;
        against.map_or(Ok(()), |against| Err(KernelError::refused(against)))
    }

    fn is_whole(&self) -> bool {
        let Some(datapath) = &self.datapath else { return true };
        datapath.is_whole() && self.carrier != Carrier::Nobody && !self.policies.are_outdated()
    }

    fn has_programs(&self) -> bool {
        self.settings.pins.is_some()
    }

    async fn find_pods(&mut self) -> Result<(), KernelError> {
        let Some(datapath) = self.datapath.as_mut().filter(|_| self.serves_pods) else { return Ok(()) };
        let mut fdb = self.netlink.bridge_fdb(&self.settings.pod_bridges).await.map_err(refused)?;
        if is_treated(&self.netlink, self.skipped).await.map_err(refused)? {
            fdb.pods.clear();
        }
        datapath.tables().set_ports(&fdb.ports).map_err(KernelError::refused)?;
        datapath.serve(&fdb.bridges, &fdb.pods).map_err(KernelError::refused)
    }

    fn take_over(&mut self) -> Result<(), KernelError> {
        self.datapath.as_mut().map_or(Ok(()), Datapath::take_over).map_err(KernelError::refused)
    }

    async fn list(&mut self, subnets: &Subnets) -> Result<Vec<Object>, KernelError> {
        let mut all = self.objects.list().await.map_err(object_refused)?;
        for family in Family::ALL {
            flannel_net::retain_ours(&mut all, self.devices.get(family).copied(), &self.networks, subnets);
        }
        if let Some(datapath) = &mut self.datapath {
            let subnet_len = subnets.v4.map_or(0, Ipv4Network::prefix);
            let (mut peers, ways) = peers_in(datapath.tables(), subnet_len).map_err(KernelError::refused)?;
            all.append(&mut peers);
            self.ways = ways;
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    async fn put(&mut self, objects: &[Object]) -> Vec<(Object, KernelError)> {
        let mut failed = Vec::new();
        // A peer that a policy concerns must not be known to programs that pass by it.
        if let Err(error) = self.obey_before(objects).await {
            let reason = Chain(&error).to_string();
            return objects
                .iter()
                .map(|object| (object.clone(), KernelError::refused(reason.clone())))
                .collect();
        }
        for objects in by_kind(objects) {
            if let (Some(Object::Peer { .. }), Some(datapath)) = (objects.first(), &mut self.datapath) {
                let put = |tables: &mut Tables, subnet, entry| tables.put_peer(subnet, entry);
                failed.append(&mut in_tables(datapath.tables(), objects, put).await);
            } else {
                let refused = self.objects.put_all(objects).await;
                failed.extend(refused.into_iter().map(|(object, error)| (object, object_refused(error))));
            }
        }
        failed
    }

    async fn remove(&mut self, objects: &[Object]) -> Vec<(Object, KernelError)> {
        let mut failed = Vec::new();
        for objects in by_kind(objects).rev() {
            if let (Some(Object::Peer { .. }), Some(datapath)) = (objects.first(), &mut self.datapath) {
                let remove = |tables: &mut Tables, subnet, entry| tables.remove_peer(subnet, entry);
                failed.append(&mut in_tables(datapath.tables(), objects, remove).await);
            } else {
                let netlink = &self.objects;
                let requests = stream::iter(objects.to_vec()).map(|object| async move {
                    let removed = netlink.remove(&object).await;
                    removed.err().map(|error| (object, object_refused(error)))
                });
                let refused = requests.buffered(IN_FLIGHT).filter_map(std::future::ready);
                failed.append(&mut refused.collect().await);
            }
        }
        failed
    }

    async fn hops(&self, addresses: &[IpAddr], underlay: &Underlay) -> Result<Vec<Hop>, KernelError> {
        flannel_net::hops(addresses, underlay).await.map_err(refused)
    }

    async fn change(&mut self) -> Change {
        tokio::select! {
            change = self.monitor.next() => change,
            () = self.policies.changed() => Change::Policies,
        }
    }
}

/// Bytes of the outer headers.
const fn overhead(tunnel: Tunnel) -> u32 {
    match tunnel {
        Tunnel::Udp { .. } => UdpStack::LEN,
        Tunnel::Vxlan { .. } => VxlanStack::LEN,
    }
}

/// Whether somebody else has put a queue or a filter where packets that skip the stack do not pass.
async fn is_treated(netlink: &Netlink, skipped: Skipped) -> Result<bool, flannel_net::Error> {
    let Skipped { device, underlay } = skipped;
    let is_device_treated = match device {
        Some(device) => !netlink.treated_by_others(&[device].into()).await?.is_empty(),
        None => false,
    };
    match underlay.filter(|_| !is_device_treated) {
        Some(underlay) => netlink.is_ingress_treated(underlay).await,
        None => Ok(is_device_treated),
    }
}

fn refused(error: flannel_net::Error) -> KernelError {
    let is_missing = error.errno() == Some(Errno::ENODEV);
    if is_missing { KernelError::MissingDevice(error.into()) } else { KernelError::refused(error) }
}

fn object_refused(error: ObjectError) -> KernelError {
    match error {
        ObjectError::Kernel(error) => refused(error),
        other => KernelError::refused(other),
    }
}

/// A map holds the address of a subnet with an impossible length.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error("the network's subnets have the impossible length {0}")]
    SubnetLen(u8),
}

/// The programs have tables of IPv4 alone.
#[derive(Debug, thiserror::Error)]
#[error("the programs have no table for the peer of {0}: they forward IPv4")]
struct NoTable(IpNetwork);

/// The interfaces by which packets have left for these peers.
fn ways_of(peers: &BTreeMap<Ipv4Addr, Peer>) -> BTreeSet<u32> {
    peers.values().map(|peer| peer.next_hop.device).collect()
}

/// The peers that the programs know, and the interface indexes of where packets have left for them.
fn peers_in(tables: &mut Tables, subnet_len: u8) -> Result<(Vec<Object>, BTreeSet<u32>), ListError> {
    let known = tables.raw_peers()?;
    let ways = ways_of(&known);
    let peers = known.into_iter().map(|(subnet, peer)| (subnet, PeerEntry::from(peer))).collect();
    tables.correct_by(&peers)?;
    let object = |(address, entry)| {
        let subnet = Ipv4Network::new(address, subnet_len).map_err(|_| ListError::SubnetLen(subnet_len))?;
        let format = vxlan_format(entry);
        let PeerEntry { public_ip, vtep_mac: mac, direct, .. } = entry;
        Ok(Object::Peer { subnet: subnet.into(), public_ip: public_ip.into(), mac, direct, format })
    };
    let peers = peers.into_iter().map(object).collect::<Result<_, ListError>>()?;
    Ok((peers, ways))
}

fn vxlan_format(entry: PeerEntry) -> Option<VxlanFormat> {
    let (vni, port) = entry.format?;
    Some(VxlanFormat { vni: Vni::new(vni)?, port })
}

/// Concurrent requests to the kernel.
const IN_FLIGHT: usize = 64;

/// Entries of the maps that are written before other tasks run.
const AT_ONCE: usize = 1000;

async fn in_tables(
    tables: &mut Tables,
    objects: &[Object],
    change: impl Fn(&mut Tables, Ipv4Addr, PeerEntry) -> Result<(), DatapathError>,
) -> Vec<(Object, KernelError)> {
    let mut failed = Vec::new();
    for objects in objects.chunks(AT_ONCE) {
        for object in objects {
            let Object::Peer { subnet, public_ip, mac, direct, format } = *object else { continue };
            let format = format.map(|format| (format.vni.get(), format.port));
            let changed = match (subnet, public_ip) {
                (IpNetwork::V4(subnet), IpAddr::V4(public_ip)) => {
                    let entry = PeerEntry { public_ip, vtep_mac: mac, direct, format };
                    change(tables, subnet.network(), entry).map_err(KernelError::refused)
                }
                _ => Err(KernelError::refused(NoTable(subnet))),
            };
            if let Err(error) = changed {
                failed.push((object.clone(), error));
            }
        }
        tokio::task::yield_now().await;
    }
    // Flows to these peers must be learned again.
    if let (Err(error), Some(last)) = (tables.begin_generation(), objects.last()) {
        failed.push((last.clone(), KernelError::refused(error)));
    }
    failed
}

/// The objects in runs of one kind.
fn by_kind(objects: &[Object]) -> impl DoubleEndedIterator<Item = &[Object]> {
    objects.chunk_by(|one, other| discriminant(one) == discriminant(other))
}

#[cfg(test)]
mod tests;
