//! Removes what the daemon made on this host: afterwards links, routes, hooks and pins are as they were before its
//! first start. Leases stay, because they belong to the cluster.

mod found;
mod named;

use std::error::Error;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use flannel_control::exclusive::{Exclusive, ExclusiveError};
use flannel_control::remembered::Remembered;
use flannel_control::subnet_file::{Previous, SubnetFileError};
use flannel_datapath::{DatapathError, PinDir, Pinned, PinnedAs, Tables, is_ingress, pinned_programs};
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::device::DeviceError;
use flannel_net::rules::{self, Names, RulesError};
use flannel_net::{Filter, Netlink, ObjectError, Objects};
use ipnetwork::{IpNetwork, Ipv4Network};

pub use found::Found;
use found::Leftover;
use named::Named;

/// What is to be taken away.
#[derive(Clone, Debug)]
pub struct Leftovers {
    /// What the keys of the network begin with; names of rules are made from it.
    pub etcd_prefix: String,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// The subnet file, if it has the same subnet.
    pub subnet_file: PathBuf,
    /// What the daemon remembered of the network.
    pub state_file: PathBuf,
}

/// Something is still there.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// Pins and hooks.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Flannel's device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Routes.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] flannel_net::Error),
    /// The subnet file.
    #[error(transparent)]
    SubnetFile(#[from] SubnetFileError),
    /// Rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A daemon runs.
    #[error(transparent)]
    Exclusive(#[from] ExclusiveError),
    /// Nothing tells what there is.
    #[error(
        "cannot tell which device and routes belong to the datapath at {path}: its maps are not in the layout of this \
         version, and neither its state file nor its subnet file is there; name them by --state-file and --subnet-file, use \
         the flannelctl of the flanneld that made it, or remove them by hand: `ip link del flannel.VNI`, `ip route flush \
         proto 85`, `rm -r {path}`"
    )]
    Unknown {
        /// Where its programs are pinned.
        path: PathBuf,
    },
    /// A file.
    #[error("cannot remove {path}: remove it by hand, or run this where it can be written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Leftovers {
    /// Looks for everything; nothing is changed.
    ///
    /// # Errors
    /// A daemon is running; the kernel refused; a name is somebody else's; nothing tells what there is.
    pub async fn find(&self, netlink: &Netlink) -> Result<Found, DownError> {
        let mut things = Vec::new();
        // Rules and files outlive a reboot; pins do not. A daemon without programs has no pins.
        let pins = PinDir::existing(&self.pin_dir)?;
        let network_lock = Exclusive::network(&self.etcd_prefix).await?;
        let file = Previous::read(&self.subnet_file)?;
        let state = Remembered::read(&self.state_file).ok().flatten();
        let tables = tables(pins.as_ref())?;
        let is_pinned = pins.is_some() && PinDir::is_in_use(&self.pin_dir);
        // A subnet file alone may be stock flannel's.
        let is_ours = state.is_some() || is_pinned;
        let named = Named::of(state.as_ref(), file.as_ref().filter(|_| is_ours));
        if tables.is_none() && is_pinned && named.is_empty() {
            return Err(DownError::Unknown { path: self.pin_dir.clone() });
        }
        if let Some(pins) = &pins {
            find_programs(netlink, pins, &mut things).await?;
        }
        match &tables {
            Some(tables) => self.find_by_tables(netlink, tables, &mut things).await?,
            None => {
                let own = named.own.v4;
                things.append(&mut named.find(netlink).await?);
                if let Some(own) = own {
                    self.find_subnet_file(own.network(), &mut things)?;
                }
            }
        }
        // Maps say what else there is, so they are removed last.
        if pins.is_some() {
            things.push(Leftover::Pins(self.pin_dir.clone()));
        }
        let network = file.and_then(|file| file.networks.first().copied()).map(IpNetwork::V4);
        let names = Names::of(&self.etcd_prefix);
        let rules = rules::leftovers(&names, network).await?;
        if !rules.is_empty() {
            let rules = rules.iter().map(|rule| rule.thing.clone()).collect();
            things.push(Leftover::Rules { names, network, things: rules });
        }
        if fs::symlink_metadata(&self.state_file).is_ok() {
            things.push(Leftover::File(self.state_file.clone()));
        }
        Ok(Found { netlink: netlink.clone(), pins, things, _network: network_lock })
    }

    async fn find_by_tables(
        &self,
        netlink: &Netlink,
        tables: &Tables,
        things: &mut Vec<Leftover>,
    ) -> Result<(), DownError> {
        let node = tables.node()?;
        let peers = tables.peers()?;
        let is_to_peer = |object: &Object| match object {
            Object::Route { subnet: IpNetwork::V4(subnet), .. } => peers.contains_key(&subnet.network()),
            _ => false,
        };
        let objects = Objects::new(netlink.clone(), PerFamily::only_v4(None)).list().await?;
        things.extend(objects.into_iter().filter(is_to_peer).map(Leftover::Route));
        if let Ok(subnet) = Ipv4Network::with_netmask(node.subnet.into(), node.netmask.into())
            && netlink.has_blackhole(subnet.into()).await?
        {
            things.push(Leftover::Blackhole(subnet.into()));
        }
        // Backends without a device have index zero, and so do hosts without a former format.
        for index in [node.device, node.former_device].into_iter().filter(|index| *index != 0) {
            if let Some(device) = netlink.link_by_index(index).await?
                && netlink.own_device(&device.name).await?.is_some()
            {
                things.push(Leftover::Device(device.name));
            }
        }
        if node.segmenter != 0 && netlink.own_segmenter().await?.is_some() {
            things.push(Leftover::Segmenter);
        }
        self.find_subnet_file(Ipv4Addr::from(node.subnet), things)
    }

    /// Another network's daemon may write the same file by now.
    fn find_subnet_file(&self, own: Ipv4Addr, things: &mut Vec<Leftover>) -> Result<(), DownError> {
        let told = Previous::read(&self.subnet_file)?.and_then(|file| file.previous_subnets().v4);
        if told.map(|subnet: Ipv4Network| subnet.network()) == Some(own) {
            things.push(Leftover::File(self.subnet_file.clone()));
        }
        Ok(())
    }
}

/// The programs, and the qdiscs that were added for them.
async fn find_programs(
    netlink: &Netlink,
    pins: &PinDir,
    things: &mut Vec<Leftover>,
) -> Result<(), DownError> {
    things.extend(flannel_datapath::program_pins(pins)?.into_iter().map(Leftover::Program));
    // What cannot be read keeps nothing else from going: whether a qdisc is in use is looked at again.
    let ours = filters(pins.path()).ok();
    for interface in flannel_datapath::qdiscs(pins)? {
        let is_ours = |filter| ours.as_ref().is_none_or(|ours| ours.contains(&(interface, filter)));
        if netlink.filters(interface).await?.into_iter().all(is_ours) {
            things.push(Leftover::Qdisc(interface));
        }
    }
    Ok(())
}

/// The filters under clsact that are ours, with their interfaces.
fn filters(pin_dir: &Path) -> Result<Vec<(u32, Filter)>, DatapathError> {
    let filter = |Pinned { program, interface, by }: Pinned| match by {
        PinnedAs::Filter { handle, priority } => {
            Some((interface, Filter { ingress: is_ingress(&program), priority, handle }))
        }
        PinnedAs::Link { .. } => None,
    };
    Ok(pinned_programs(pin_dir)?.into_iter().filter_map(filter).collect())
}

/// The maps; nothing where there are none in this build's layout. Of those that cannot be opened it is not known what
/// there is to remove.
fn tables(pins: Option<&PinDir>) -> Result<Option<Tables>, DownError> {
    match pins.map(|pins| Tables::open(pins.path())).transpose() {
        Err(error) if !is_absence(&error) => Err(error.into()),
        tables => Ok(tables.unwrap_or_default()),
    }
}

fn is_absence(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::NotFound)
}
