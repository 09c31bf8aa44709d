//! What is still there, and its removal.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use flannel_control::exclusive::Exclusive;
use flannel_datapath::PinDir;
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_net::device::segmenter::{ENTRANCE, EXIT};
use flannel_net::rules::{self, Names};
use flannel_net::{Netlink, Objects};
use ipnetwork::IpNetwork;

use super::DownError;

/// Something of the daemon's that is still there.
#[derive(Debug)]
pub(super) enum Leftover {
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
    pub(super) netlink: Netlink,
    pub(super) pins: Option<PinDir>,
    pub(super) things: Vec<Leftover>,
    /// Taken away with this is the lock of a daemon that was killed.
    pub(super) _network: Exclusive,
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

/// Whether there was one.
fn remove_file(path: &Path) -> Result<bool, DownError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DownError::File { path: path.to_owned(), source }),
    }
}
