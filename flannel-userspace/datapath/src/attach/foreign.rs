//! Programs of others at the ports of pods. Packets that bypass the stack would bypass them too.

use aya::programs::{SchedClassifier, TcAttachType};

use super::name_of;

/// Our programs at such a port.
const OURS: [&str; 2] = ["pod_out", "pod_in"];

/// Whether somebody else's TCX program is attached to the interface. A kernel without TCX has none.
pub(super) fn is_at(interface: u32) -> bool {
    let Ok(name) = name_of(interface) else { return false };
    [TcAttachType::Ingress, TcAttachType::Egress].into_iter().any(|direction| {
        SchedClassifier::query_tcx(&name, direction).is_ok_and(|(_, programs)| {
            programs.iter().any(|program| program.name_as_str().is_none_or(|name| !OURS.contains(&name)))
        })
    })
}
