//! Removes what the daemon made on this host: afterwards links, routes, hooks and pins are as they were before its
//! first start. Leases stay, because they belong to the cluster.

mod named;

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use flannel_control::exclusive::{Exclusive, ExclusiveError};
use flannel_control::remembered::Remembered;
use flannel_control::subnet_file::{Previous, SubnetFileError};
use flannel_datapath::{DatapathError, PinDir, Tables};
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::device::DeviceError;
use flannel_net::device::segmenter::{ENTRANCE, EXIT};
use flannel_net::rules::{self, Names, RulesError};
use flannel_net::{Netlink, ObjectError, Objects};
use ipnetwork::{IpNetwork, Ipv4Network};

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
    /// Removes everything, and returns what that was, one line per object.
    ///
    /// # Errors
    /// A daemon is running; the kernel refused. The next call removes the rest.
    pub async fn remove(&self, netlink: &Netlink) -> Result<Vec<String>, DownError> {
        let mut removed = Vec::new();
        // Rules and files outlive a reboot; pins do not.
        let pins = PinDir::existing(&self.pin_dir)?;
        // A daemon without programs has no pins. What is taken away with this is the lock of one that was killed.
        let _network = Exclusive::network(&self.etcd_prefix).await?;
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
            removed.append(&mut detach(netlink, pins).await?);
        }
        match &tables {
            Some(tables) => removed.append(&mut self.remove_by_tables(netlink, tables).await?),
            None => {
                let own = named.own.v4;
                removed.append(&mut named.remove(netlink).await?);
                if let Some(own) = own {
                    self.remove_subnet_file(own.network(), &mut removed)?;
                }
            }
        }
        // Maps say what else there is, so they are removed last.
        if let Some(pins) = pins {
            pins.remove()?;
            removed.push(format!("pins {}", self.pin_dir.display()));
        }
        let network = file.and_then(|file| file.networks.first().copied()).map(IpNetwork::V4);
        let repairs = rules::remove(&Names::of(&self.etcd_prefix), network).await?;
        if !repairs.is_empty() {
            removed.push(format!("rules: {repairs}"));
        }
        remove_file(&self.state_file, &mut removed)?;
        Ok(removed)
    }

    async fn remove_by_tables(&self, netlink: &Netlink, tables: &Tables) -> Result<Vec<String>, DownError> {
        let node = tables.node()?;
        let mut removed = Vec::new();
        let objects = Objects::new(netlink.clone(), PerFamily::only_v4(None));
        let peers = tables.peers()?;
        for object in objects.list().await? {
            if let Object::Route { subnet: IpNetwork::V4(subnet), .. } = object
                && peers.contains_key(&subnet.network())
            {
                objects.remove(&object).await?;
                removed.push(format!("route to {subnet}"));
            }
        }
        if let Ok(subnet) = Ipv4Network::with_netmask(node.subnet.into(), node.netmask.into())
            && netlink.remove_blackhole(subnet.into()).await?
        {
            removed.push(format!("blackhole route to {subnet}"));
        }
        // Backends without a device have index zero.
        let device = match node.device {
            0 => None,
            index => netlink.link_by_index(index).await?,
        };
        if let Some(device) = device
            && netlink.remove_device(&device.name).await?
        {
            removed.push(format!("device {}", device.name));
        }
        if node.segmenter != 0 && netlink.remove_segmenter().await? {
            removed.push(format!("devices {ENTRANCE} and {EXIT}"));
        }
        self.remove_subnet_file(node.subnet.into(), &mut removed)?;
        Ok(removed)
    }

    /// Another network's daemon may write the same file by now.
    fn remove_subnet_file(&self, subnet: Ipv4Addr, removed: &mut Vec<String>) -> Result<(), DownError> {
        let told = Previous::read(&self.subnet_file)?.and_then(|file| file.previous_subnets().v4);
        if told.map(|subnet: Ipv4Network| subnet.network()) == Some(subnet) {
            remove_file(&self.subnet_file, removed)?;
        }
        Ok(())
    }
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

/// Detaches all programs, and removes the qdiscs that were added for them.
async fn detach(netlink: &Netlink, pins: &PinDir) -> Result<Vec<String>, DownError> {
    let mut removed = Vec::new();
    for pin in flannel_datapath::detach_all(pins)? {
        removed.push(format!("program {pin}"));
    }
    for interface in flannel_datapath::qdiscs(pins)? {
        if netlink.remove_empty_clsact(interface).await? {
            removed.push(format!("clsact qdisc of interface {interface}"));
        }
    }
    Ok(removed)
}

fn remove_file(path: &Path, removed: &mut Vec<String>) -> Result<(), DownError> {
    match std::fs::remove_file(path) {
        Ok(()) => removed.push(format!("file {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(DownError::File { path: path.to_owned(), source }),
    }
    Ok(())
}
