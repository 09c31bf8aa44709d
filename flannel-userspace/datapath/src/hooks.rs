//! Which programs should be in which places, and which are.

use std::collections::BTreeSet;
use std::path::Path;

use flannel_common::maps::Node;
use flannel_model::backend::Kind;
use flannel_net::device::segmenter::EXIT;
use flannel_net::{Filter, Netlink, Uplink};
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use crate::{
    DatapathError, Format, Pinned, PinnedAs, interface_name, is_ingress, is_linked, pinned_programs,
    wanted_places,
};

/// A program in a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Name of the program.
    pub program: String,
    /// Where.
    pub interface: Interface,
    /// `tcx`, `clsact` or `xdp`; absent if nothing says that it was ever attached.
    pub mechanism: Option<String>,
    /// Whether it sees packets.
    pub attached: bool,
    /// Whether the tunnel needs it.
    pub required: bool,
}

/// A network interface by the index the programs know; the name is missing where there is none with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: Option<String>,
}

impl Interface {
    /// The interface of that index.
    pub fn new(index: u32) -> Self {
        Self { index, name: interface_name(index) }
    }

    /// For people.
    pub fn text(&self) -> String {
        let name = self.name.as_deref().unwrap_or("gone");
        format!("{name} (index {})", self.index)
    }
}

/// The format of the tunnel, if there is one.
pub fn format(node: &Node) -> Option<Format> {
    match Kind::from_number(node.backend) {
        // An exit that is missing has the index of no interface.
        Some(Kind::Udp) => Some(Format::Udp { segmented: if_nametoindex(EXIT).unwrap_or(0) }),
        Some(Kind::Vxlan) => Some(Format::Vxlan),
        _ => None,
    }
}

/// The programs that are needed, and the others that are pinned, by interface.
///
/// # Errors
/// A pin cannot be read.
pub async fn hooks(netlink: &Netlink, pin_dir: &Path, node: &Node) -> Result<Vec<Hook>, DatapathError> {
    // What is pinned at other uplinks is there besides.
    let underlay = netlink.link_by_index(node.underlay).await.ok().flatten();
    let underlay =
        Uplink { index: node.underlay, has_ethernet: underlay.is_none_or(|underlay| underlay.has_ethernet) };
    let wanted: BTreeSet<(String, u32)> = wanted_places(format(node), node, [&underlay])
        .into_iter()
        .map(|(program, interface)| (program.to_owned(), interface))
        .collect();
    let mut hooks = Vec::new();
    let mut missing = wanted.clone();
    for pinned in pinned_programs(pin_dir)? {
        let place = (pinned.program.clone(), pinned.interface);
        missing.remove(&place);
        hooks.push(Hook {
            attached: is_attached(netlink, pin_dir, &pinned).await,
            required: wanted.contains(&place),
            program: pinned.program,
            interface: Interface::new(pinned.interface),
            mechanism: Some(pinned.by.mechanism().to_string()),
        });
    }
    hooks.extend(missing.into_iter().map(|(program, interface)| Hook {
        program,
        interface: Interface::new(interface),
        mechanism: None,
        attached: false,
        required: true,
    }));
    hooks.sort_by(|a, b| (a.interface.index, &a.program).cmp(&(b.interface.index, &b.program)));
    Ok(hooks)
}

/// Whether the program is where its pin says. What cannot be looked up, as on an interface that is gone, is not.
async fn is_attached(netlink: &Netlink, pin_dir: &Path, pinned: &Pinned) -> bool {
    let Pinned { program, interface, by } = pinned;
    match *by {
        PinnedAs::Link { .. } => is_linked(pin_dir, program, *interface),
        PinnedAs::Filter { handle, priority } => {
            let ours = Filter { ingress: is_ingress(program), priority, handle };
            netlink.filters(*interface).await.is_ok_and(|filters| filters.contains(&ours))
        }
    }
}
