//! What is in the kernel: in its own tables and in the maps and hooks of the programs.

use std::mem::discriminant;
use std::net::Ipv4Addr;
use std::sync::Arc;

use flannel_common::flow::FastPath;
use flannel_common::maps::{Guard, Node};
use flannel_common::{Ip4, Mac};
use flannel_datapath::{
    Datapath, DatapathError, Format, HookChoice, PeerEntry, PinDir, ProgramSettings, Spec, Support, Tables,
};
use flannel_model::config::BackendConfig;
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Underlay};
use flannel_net::device::DeviceError;
use flannel_net::interface::InterfaceError;
use flannel_net::{Netlink, ObjectError, Objects, interface};
use futures::{StreamExt as _, stream};
use ipnetwork::Ipv4Network;
use thiserror::Error;
use tracing::info;

use crate::backend::{Backend, PrepareError, Unreachable};
use crate::peers::Peer;

/// What the state of the kernel is made from.
pub struct NodeContext {
    /// The kernel's tables of links and routes.
    pub netlink: Netlink,
    /// What a peer becomes.
    pub backend: Backend,
    /// What the network's configuration says of the backend.
    pub backend_config: BackendConfig,
    /// The interface that carries the tunnel.
    pub underlay: Underlay,
    /// How that was chosen.
    pub interface: InterfaceOptions,
    /// The whole network.
    pub network: Ipv4Network,
    /// The subnet this host leases.
    pub subnet: Ipv4Network,
    /// Where programs and maps are pinned; nothing where the host takes no programs, so that the kernel forwards alone.
    pub pins: Option<Arc<PinDir>>,
    /// Where programs are attached.
    pub hook: HookChoice,
    /// What programs do besides.
    pub program_settings: ProgramSettings,
    /// How strictly the guard looks at packets out of the tunnel.
    pub guard: Guard,
    /// Which flows are shortened.
    pub fast_path: FastPath,
    /// Whether packets in the tunnel bear the DSCP of those inside.
    pub copy_dscp: bool,
    /// Names of the bridges with pods behind their ports.
    pub pod_bridges: Vec<String>,
}

/// The kernel's own tables and the datapath, as one set of objects.
pub struct KernelState {
    ground: NodeContext,
    objects: Objects,
    /// Nothing where the kernel forwards alone.
    datapath: Option<Datapath>,
    /// What has changed since the datapath was made. While the kernel refuses another one, the former stays.
    outdated: Changes,
}

/// What is another one than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The underlay's interface, address or MTU.
    pub(super) underlay: bool,
    /// The device, so that every object on it is another one, too.
    pub(super) device: bool,
}

/// Something could not be put, removed or listed.
#[derive(Debug, Error)]
pub enum StateError {
    /// In the kernel's own tables.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] flannel_net::Error),
    /// The underlay is gone with nothing in its place.
    #[error("the underlay is gone; waiting for it")]
    NoUnderlay(#[source] InterfaceError),
    /// Flannel's device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The backend cannot work with the underlay as it is now.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// In the maps or hooks.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A map holds the address of a subnet with an impossible length.
    #[error("the network's subnets have the impossible length {0}")]
    SubnetLen(u8),
}

impl KernelState {
    /// Gives the device its address and has the programs in their places. What an earlier daemon left is taken
    /// over as it is.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn start(ground: NodeContext) -> Result<Self, StateError> {
        ground.backend.activate(&ground.netlink, ground.subnet, ground.network).await?;
        let device = ground.backend.device().map(|device| device.index);
        let datapath = ground.start_datapath()?;
        let objects = Objects::new(ground.netlink.clone(), device);
        let mut state = Self { ground, objects, datapath, outdated: Changes::default() };
        state.serve_pods().await?;
        Ok(state)
    }

    pub(super) const fn ground(&self) -> &NodeContext {
        &self.ground
    }

    /// Makes the device, its address and the programs' places what they should be over the underlay as it is now, and
    /// tells what has changed since it last succeeded in that. Programs are replaced when all of the new ones are loaded.
    pub(super) async fn hold(&mut self) -> Result<Changes, StateError> {
        self.outdated.underlay |= self.follow_underlay().await?;
        let ground = &mut self.ground;
        self.outdated.device |= ground.backend.restore(&ground.netlink).await?;
        ground.backend.activate(&ground.netlink, ground.subnet, ground.network).await?;
        if self.outdated != Changes::default() {
            let device = ground.backend.device().map(|device| device.index);
            self.objects = Objects::new(ground.netlink.clone(), device);
            self.datapath = ground.start_datapath()?;
        } else if let Some(datapath) = &mut self.datapath {
            datapath.hold()?;
        }
        self.serve_pods().await?;
        Ok(std::mem::take(&mut self.outdated))
    }

    /// Whether nobody has detached a program.
    pub(super) fn is_whole(&self) -> bool {
        self.datapath.as_ref().is_none_or(Datapath::is_whole)
    }

    /// Whether the underlay is another one than before.
    async fn follow_underlay(&mut self) -> Result<bool, StateError> {
        let ground = &mut self.ground;
        let now = interface::follow(&ground.netlink, &ground.interface, &ground.underlay).await;
        let now = now.map_err(StateError::NoUnderlay)?;
        if now.is_same_way(&ground.underlay) {
            ground.underlay.networks = now.networks;
            return Ok(false);
        }
        let Underlay { name, address, mtu, .. } = &now;
        info!(interface = name, %address, mtu, "following the underlay");
        ground.backend.move_to(&ground.backend_config, &now)?;
        ground.underlay = now;
        Ok(true)
    }

    /// Tells the programs which bridges there are, and which pod is behind which of their ports.
    pub(super) async fn serve_pods(&mut self) -> Result<(), StateError> {
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        if self.ground.backend.device().is_none() && self.ground.fast_path() == FastPath::Off {
            return Ok(());
        }
        let fdb = self.ground.netlink.bridge_fdb(&self.ground.pod_bridges).await?;
        datapath.tables().set_ports(&fdb.ports)?;
        datapath.serve(&fdb.bridges, &fdb.pods)?;
        Ok(())
    }

    /// Hears that the maps know every peer there is to know.
    pub(super) fn take_over(&mut self) -> Result<(), StateError> {
        Ok(self.datapath.as_mut().map_or(Ok(()), Datapath::take_over)?)
    }

    /// Everything of ours, in order.
    pub(super) async fn list(&mut self) -> Result<Vec<Object>, StateError> {
        let mut all = self.objects.list().await?;
        if let Some(datapath) = &mut self.datapath {
            all.append(&mut peers_in(datapath.tables(), self.ground.subnet.prefix())?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Puts each of `objects`, which are in order, there, in the place of one with the same key: those of one kind
    /// together, kind by kind. Returns those that could not be put.
    pub(super) async fn put(&mut self, objects: &[Object]) -> Vec<(Object, StateError)> {
        let mut failed = Vec::new();
        for objects in by_kind(objects) {
            if let (Some(Object::Peer { .. }), Some(datapath)) = (objects.first(), &mut self.datapath) {
                let put = |tables: &mut Tables, subnet, entry| tables.put_peer(subnet, entry);
                failed.append(&mut in_tables(datapath.tables(), objects, put).await);
            } else {
                let refused = self.objects.put_all(objects).await;
                failed.extend(refused.into_iter().map(|(object, error)| (object, error.into())));
            }
        }
        failed
    }

    /// Removes exactly `objects`, which are in order, not what has taken their place, in the reverse order of kinds.
    /// Returns those that could not be removed.
    pub(super) async fn remove(&mut self, objects: &[Object]) -> Vec<(Object, StateError)> {
        let mut failed = Vec::new();
        for objects in by_kind(objects).rev() {
            if let (Some(Object::Peer { .. }), Some(datapath)) = (objects.first(), &mut self.datapath) {
                let remove = |tables: &mut Tables, subnet, entry| tables.remove_peer(subnet, entry);
                failed.append(&mut in_tables(datapath.tables(), objects, remove).await);
            } else {
                let netlink = &self.objects;
                let requests = stream::iter(objects.to_vec()).map(|object| async move {
                    let removed = netlink.remove(&object).await;
                    removed.err().map(|error| (object, StateError::from(error)))
                });
                let refused = requests.buffered(IN_FLIGHT).filter_map(std::future::ready);
                failed.append(&mut refused.collect().await);
            }
        }
        failed
    }
}

/// The peers that the programs know.
fn peers_in(tables: &mut Tables, subnet_len: u8) -> Result<Vec<Object>, StateError> {
    let peers = tables.peers()?;
    tables.correct_by(&peers)?;
    let object = |(address, entry)| {
        let subnet = Ipv4Network::new(address, subnet_len).map_err(|_| StateError::SubnetLen(subnet_len))?;
        let PeerEntry { public_ip, vtep_mac: mac, direct } = entry;
        Ok(Object::Peer { subnet, public_ip, mac, direct })
    };
    peers.into_iter().map(object).collect()
}

/// Requests to the kernel that are under way at a time.
const IN_FLIGHT: usize = 64;

/// Entries of the maps that are written before everybody else has a turn.
const AT_ONCE: usize = 1000;

async fn in_tables(
    tables: &mut Tables,
    objects: &[Object],
    change: impl Fn(&mut Tables, Ipv4Addr, PeerEntry) -> Result<(), DatapathError>,
) -> Vec<(Object, StateError)> {
    let mut failed = Vec::new();
    for objects in objects.chunks(AT_ONCE) {
        for object in objects {
            let Object::Peer { subnet, public_ip, mac, direct } = *object else { continue };
            let entry = PeerEntry { public_ip, vtep_mac: mac, direct };
            if let Err(error) = change(tables, subnet.network(), entry) {
                failed.push((object.clone(), error.into()));
            }
        }
        tokio::task::yield_now().await;
    }
    // What is on its way to these peers must find out anew how.
    if let (Err(error), Some(last)) = (tables.begin_generation(), objects.last()) {
        failed.push((last.clone(), error.into()));
    }
    failed
}

/// The objects in runs of one kind.
fn by_kind(objects: &[Object]) -> impl DoubleEndedIterator<Item = &[Object]> {
    objects.chunk_by(|one, other| discriminant(one) == discriminant(other))
}

impl StateError {
    /// Whether the device an object belongs to does not exist.
    pub(super) fn is_missing_device(&self) -> bool {
        match self {
            Self::Object(ObjectError::Kernel(error)) | Self::Kernel(error) => {
                error.errno() == Some(nix::errno::Errno::ENODEV)
            }
            _ => false,
        }
    }
}

impl NodeContext {
    /// Everything by which `peer`, whose address is reached by `hop`, is reached.
    pub(super) fn objects(&self, peer: &Peer, hop: Hop) -> Result<Vec<Object>, Unreachable> {
        let mut objects = self.backend.objects(peer, hop)?;
        if self.pins.is_none() {
            // There are no programs to know it.
            objects.retain(|object| !matches!(object, Object::Peer { .. }));
        }
        Ok(objects)
    }

    fn start_datapath(&self) -> Result<Option<Datapath>, DatapathError> {
        self.pins.clone().map(|pins| Datapath::start(pins, self.spec())).transpose()
    }

    /// What the datapath is to be.
    fn spec(&self) -> Spec {
        let format = match &self.backend {
            Backend::Udp(udp) => Some(Format::Udp { segmented: udp.segmenter.exit }),
            Backend::Vxlan(_) => Some(Format::Vxlan),
            Backend::HostGw(_) | Backend::Alloc { .. } => None,
        };
        let routes = self.backend.depends_on_hop();
        Spec { format, routes, node: self.node(), hook: self.hook, program_settings: self.program_settings }
    }

    /// Without peers there is nothing to shorten, and without `bpf_check_mtu` nobody to say what may be.
    fn fast_path(&self) -> FastPath {
        match self.backend {
            Backend::Alloc { .. } => FastPath::Off,
            _ if !Support::of_this_kernel().check_mtu => FastPath::Off,
            _ => self.fast_path,
        }
    }

    fn node(&self) -> Node {
        let device = self.backend.device();
        let (vni, port) = self.backend.tunnel().unwrap_or_default();
        Node {
            backend: self.backend.kind().number(),
            device: device.map_or(0, |device| device.index),
            underlay: self.underlay.index,
            segmenter: match &self.backend {
                Backend::Udp(udp) => udp.segmenter.entrance,
                _ => 0,
            },
            local_ip: self.underlay.address.into(),
            subnet: self.subnet.network().into(),
            netmask: Ip4::netmask(self.subnet.prefix()),
            vni,
            port: port.into(),
            guard: self.guard as u32,
            fast_path: self.fast_path() as u32,
            copied_tos: if self.copy_dscp { Node::DSCP } else { 0 },
            flow_seed: rand::random(),
            device_mac: device.map_or(Mac::ZERO, |device| device.mac),
            reserved: 0,
        }
    }
}
