//! Programs of others that packets which bypass the stack would bypass too.

use aya::programs::{SchedClassifier, TcAttachType};

use super::name_of;

/// Our programs at TC.
const OURS: [&str; 13] = [
    "bridge",
    "direct_in",
    "direct_out",
    "pod_in",
    "pod_out",
    "udp_decap",
    "udp_decap_l3",
    "udp_encap",
    "udp_segmented",
    "vxlan_decap",
    "vxlan_decap_l3",
    "vxlan_device",
    "vxlan_encap",
];

/// Which packets of an interface matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Those that arrive.
    Ingress,
    /// All.
    Both,
}

/// Whether somebody else's TCX program is attached to the interface. A kernel without TCX has none.
pub(super) fn is_at(interface: u32, side: Side) -> bool {
    let Ok(name) = name_of(interface) else { return false };
    let directions: &[TcAttachType] = match side {
        Side::Ingress => &[TcAttachType::Ingress],
        Side::Both => &[TcAttachType::Ingress, TcAttachType::Egress],
    };
    directions.iter().any(|direction| {
        SchedClassifier::query_tcx(&name, *direction).is_ok_and(|(_, programs)| {
            programs.iter().any(|program| program.name_as_str().is_none_or(|name| !OURS.contains(&name)))
        })
    })
}
