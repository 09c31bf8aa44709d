//! What is attached, looked at without changing anything.

use std::path::Path;

use aya::programs::links::{FdLink, LinkType, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use flannel_common::maps::Node;
use flannel_net::Uplink;
use flannel_net::qdisc::PRIORITY;
use nix::errno::Errno;

use super::{DatapathError, Format, direction, errno, foreign_link, is_pin_detached, name_of};
use crate::Mechanism;
use crate::bpffs::names_in;

/// A program whose place is known from a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Name of the program.
    pub program: String,
    /// Interface index.
    pub interface: u32,
    /// How it is attached.
    pub by: PinnedAs,
}

/// How a pinned program is attached, and how to check whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedAs {
    /// By a link that is pinned itself. A detached link still names its program.
    Link {
        /// TCX, XDP or generic XDP.
        mechanism: Mechanism,
        /// Id of the program.
        program_id: u32,
    },
    /// By a filter under clsact.
    Filter {
        /// Handle of the filter.
        handle: u32,
        /// Its priority.
        priority: u16,
    },
}

impl PinnedAs {
    /// How it is attached.
    #[must_use]
    pub const fn mechanism(self) -> Mechanism {
        match self {
            Self::Link { mechanism, .. } => mechanism,
            Self::Filter { .. } => Mechanism::Clsact,
        }
    }

    /// Id of the program, if a link reports it.
    #[must_use]
    pub const fn program_id(self) -> Option<u32> {
        match self {
            Self::Link { program_id, .. } => Some(program_id),
            Self::Filter { .. } => None,
        }
    }
}

/// The places, program and interface index, that a tunnel whose packets arrive by `uplinks` needs, without those of
/// bridges and of XDP.
///
/// Receivers come first, so that an answer to a packet is received. The guard of the flannel device comes last: when it
/// changes hooks it is detached for a moment, which should be short.
#[must_use]
pub fn wanted_places<'a>(
    format: Option<Format>,
    node: &Node,
    uplinks: impl IntoIterator<Item = &'a Uplink>,
) -> Vec<(&'static str, u32)> {
    let Some(format) = format else { return Vec::new() };
    let receivers = uplinks.into_iter().map(|uplink| (receiver(format, uplink.has_ethernet), uplink.index));
    let others = match format {
        Format::Udp { segmented } => [("udp_segmented", segmented), ("udp_encap", node.device)],
        Format::Vxlan => [("vxlan_encap", node.device), ("vxlan_device", node.device)],
    };
    let former = (node.former_device != 0).then_some(("vxlan_device", node.former_device));
    receivers.chain(others).chain(former).collect()
}

/// The program that decapsulates at the ingress of an interface.
const fn receiver(format: Format, has_ethernet: bool) -> &'static str {
    match (format, has_ethernet) {
        (Format::Udp { .. }, true) => "udp_decap",
        (Format::Udp { .. }, false) => "udp_decap_l3",
        (Format::Vxlan, true) => "vxlan_decap",
        (Format::Vxlan, false) => "vxlan_decap_l3",
    }
}

/// The programs pinned below `pin_dir`.
///
/// # Errors
/// A pin cannot be read.
pub fn pinned_programs(pin_dir: &Path) -> Result<Vec<Pinned>, DatapathError> {
    let mut all = Vec::new();
    for name in names_in(&pin_dir.join("links"))? {
        let pin = pin_dir.join("links").join(&name);
        let Some((program, interface)) = name.rsplit_once('-') else { continue };
        let Ok(interface) = interface.parse() else { continue };
        let link = PinnedLink::from_pin(&pin).map_err(|error| foreign_link(&pin, &error))?;
        let info = FdLink::from(link).info().map_err(|error| foreign_link(&pin, &error))?;
        let mechanism = match info.link_type() {
            // A link does not report its mode, but each mode has its own programs.
            Ok(LinkType::Xdp) if program.ends_with("_skb") => Mechanism::XdpGeneric,
            Ok(LinkType::Xdp) => Mechanism::Xdp,
            _ => Mechanism::Tcx,
        };
        let by = PinnedAs::Link { mechanism, program_id: info.program_id() };
        all.push(Pinned { program: program.to_owned(), interface, by });
    }
    for name in names_in(&pin_dir.join("filters"))? {
        let mut parts = name.rsplitn(3, '-');
        let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
        let (Some(handle), Some(interface)) = (number(), number()) else { continue };
        let Some(program) = parts.next() else { continue };
        let by = PinnedAs::Filter { handle, priority: PRIORITY };
        all.push(Pinned { program: program.to_owned(), interface, by });
    }
    all.sort_by(|a, b| (a.interface, &a.program).cmp(&(b.interface, &b.program)));
    Ok(all)
}

/// Whether the link of a program pinned below `pin_dir` is still attached to its interface. Unlike the ids of programs
/// at a hook, the kernel reports this to everybody who may open the pin.
#[must_use]
pub fn is_linked(pin_dir: &Path, program: &str, interface: u32) -> bool {
    !is_pin_detached(&pin_dir.join("links").join(format!("{program}-{interface}")))
}

/// Whether `program` sees what arrives at its interface; else what leaves.
#[must_use]
pub fn is_ingress(program: &str) -> bool {
    direction(program) == TcAttachType::Ingress
}

/// The ids of the programs at the TCX hook of an interface at which `program` belongs; nothing where the kernel knows
/// no TCX.
///
/// # Errors
/// The interface is gone, or the kernel refuses.
pub fn tcx_programs(interface: u32, program: &str) -> Result<Option<Vec<u32>>, DatapathError> {
    match SchedClassifier::query_tcx(&name_of(interface)?, direction(program)) {
        Ok((_, programs)) => Ok(Some(programs.iter().map(aya::programs::ProgramInfo::id).collect())),
        Err(error) if errno(&error) == Some(Errno::EINVAL) => Ok(None),
        Err(error) => Err(DatapathError::Program { program: program.to_owned(), source: error.into() }),
    }
}
