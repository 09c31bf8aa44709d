//! Removes what the daemon made on this host: afterwards links, routes, hooks and pins are as they were before its
//! first start. Leases stay, because they belong to the cluster.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use flannel_control::subnet_file::{Previous, SubnetFileError};
use flannel_datapath::{DatapathError, PinDir, Pinned, PinnedAs, Tables, is_ingress, pinned_programs};
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::device::DeviceError;
use flannel_net::device::segmenter::{ENTRANCE, EXIT};
use flannel_net::rules::{self, Names, RulesError};
use flannel_net::{Filter, Netlink, ObjectError, Objects};
use ipnetwork::{IpNetwork, Ipv4Network};
use thiserror::Error;

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
#[derive(Debug, Error)]
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
    /// A file.
    #[error("cannot remove {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Something of the daemon's that is still there.
#[derive(Debug)]
enum Leftover {
    /// By the name of its pin.
    Program(String),
    /// By its interface.
    Qdisc(u32),
    Route(Object),
    Blackhole(IpNetwork),
    Device(String),
    Segmenter,
    Pins(PathBuf),
    /// Under these names, and what stock flannel wrote for this network.
    Rules {
        names: Names,
        network: Option<IpNetwork>,
        things: Vec<String>,
    },
    File(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(pin) => write!(f, "program {pin}"),
            Self::Qdisc(interface) => write!(f, "clsact qdisc of interface {interface}"),
            Self::Route(Object::Route { subnet, .. }) => write!(f, "route to {subnet}"),
            Self::Route(other) => write!(f, "{other:?}"),
            Self::Blackhole(subnet) => write!(f, "blackhole route to {subnet}"),
            Self::Device(name) => write!(f, "device {name}"),
            Self::Segmenter => write!(f, "devices {ENTRANCE} and {EXIT}"),
            Self::Pins(path) => write!(f, "pins {}", path.display()),
            Self::Rules { things, .. } => write!(f, "rules: {}", things.join(", ")),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What is still there, in the order in which it is to go. No daemon can start meanwhile.
#[derive(Debug)]
pub struct Found {
    netlink: Netlink,
    pins: Option<PinDir>,
    things: Vec<Leftover>,
}

impl Found {
    /// One line for each thing.
    pub fn lines(&self) -> Vec<String> {
        self.things.iter().map(ToString::to_string).collect()
    }

    /// Removes one thing after the other, and adds a line to `removed` for each.
    ///
    /// # Errors
    /// The kernel refused; what is not in `removed` is still there, and the next call removes it.
    pub async fn remove(mut self, removed: &mut Vec<String>) -> Result<(), DownError> {
        for thing in std::mem::take(&mut self.things) {
            let line = thing.to_string();
            if self.remove_one(thing).await? {
                removed.push(line);
            }
        }
        Ok(())
    }

    /// Whether it was still there.
    async fn remove_one(&mut self, thing: Leftover) -> Result<bool, DownError> {
        match thing {
            Leftover::Program(pin) => {
                if let Some(pins) = &self.pins {
                    flannel_datapath::detach(pins, &pin)?;
                }
                Ok(true)
            }
            Leftover::Qdisc(interface) => Ok(self.netlink.remove_empty_clsact(interface).await?),
            Leftover::Route(route) => {
                Objects::new(self.netlink.clone(), PerFamily::only_v4(None)).remove(&route).await?;
                Ok(true)
            }
            Leftover::Blackhole(subnet) => Ok(self.netlink.remove_blackhole(subnet).await?),
            Leftover::Device(name) => Ok(self.netlink.remove_device(&name).await?),
            Leftover::Segmenter => Ok(self.netlink.remove_segmenter().await?),
            Leftover::Pins(_) => {
                self.pins.take().map(PinDir::remove).transpose()?;
                Ok(true)
            }
            Leftover::Rules { names, network, .. } => {
                rules::remove(&names, network).await?;
                Ok(true)
            }
            Leftover::File(path) => remove_file(&path),
        }
    }
}

impl Leftovers {
    /// Looks for everything; nothing is changed.
    ///
    /// # Errors
    /// A daemon is running; the kernel refused; a name is somebody else's.
    pub async fn find(&self, netlink: &Netlink) -> Result<Found, DownError> {
        let mut things = Vec::new();
        // Rules and files outlive a reboot; pins do not.
        let pins = PinDir::existing(&self.pin_dir)?;
        let network = Previous::read(&self.subnet_file)?
            .and_then(|file| file.networks.first().copied())
            .map(IpNetwork::V4);
        if let Some(pins) = &pins {
            self.find_datapath(netlink, pins, &mut things).await?;
        }
        let names = Names::of(&self.etcd_prefix);
        let rules = rules::leftovers(&names, network).await?;
        if !rules.is_empty() {
            let rules = rules.iter().map(|rule| rule.thing.clone()).collect();
            things.push(Leftover::Rules { names, network, things: rules });
        }
        if fs::symlink_metadata(&self.state_file).is_ok() {
            things.push(Leftover::File(self.state_file.clone()));
        }
        Ok(Found { netlink: netlink.clone(), pins, things })
    }

    async fn find_datapath(
        &self,
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
        // A half-made datapath has no maps.
        if let Ok(tables) = Tables::open(pins.path()) {
            self.find_by_tables(netlink, &tables, things).await?;
        }
        // Maps say what else there is, so they are removed last.
        things.push(Leftover::Pins(self.pin_dir.clone()));
        Ok(())
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
        // Backends without a device have index zero.
        let device = match node.device {
            0 => None,
            index => netlink.link_by_index(index).await?,
        };
        if let Some(device) = device
            && netlink.own_device(&device.name).await?.is_some()
        {
            things.push(Leftover::Device(device.name));
        }
        if node.segmenter != 0 && netlink.own_segmenter().await?.is_some() {
            things.push(Leftover::Segmenter);
        }
        // Another network's daemon may write the same file by now.
        let told = Previous::read(&self.subnet_file)?.and_then(|file| file.previous_subnets().v4);
        if told.map(|subnet: Ipv4Network| subnet.network()) == Some(Ipv4Addr::from(node.subnet)) {
            things.push(Leftover::File(self.subnet_file.clone()));
        }
        Ok(())
    }
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

/// Whether there was one.
fn remove_file(path: &Path) -> Result<bool, DownError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DownError::File { path: path.to_owned(), source }),
    }
}
