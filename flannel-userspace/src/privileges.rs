//! What the process may do.

use caps::{CapSet, Capability};
use thiserror::Error;

/// What setting the datapath up takes: programs and maps, and the network's links and routes.
const NEEDED: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// The process may not do its work.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel does not tell.
    #[error("cannot read this process's capabilities")]
    Unknown(#[source] caps::errors::CapsError),
    /// Something is missing.
    #[error(
        "flanneld lacks {}: run it as root, or grant the capabilities (systemd: AmbientCapabilities=, \
         Kubernetes: securityContext.capabilities.add)",
        names(.0)
    )]
    Missing(Vec<Capability>),
}

fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Checks that the process holds the capabilities it needs, and names those it does not.
pub fn check() -> Result<(), PrivilegeError> {
    let held = caps::read(None, CapSet::Effective).map_err(PrivilegeError::Unknown)?;
    let missing: Vec<Capability> = NEEDED.into_iter().filter(|needed| !held.contains(needed)).collect();
    if missing.is_empty() { Ok(()) } else { Err(PrivilegeError::Missing(missing)) }
}

#[cfg(test)]
mod tests {
    use caps::Capability;

    use super::PrivilegeError;

    #[test]
    fn missing_capabilities_are_named() {
        let error = PrivilegeError::Missing(vec![Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        assert!(error.to_string().starts_with("flanneld lacks CAP_BPF and CAP_NET_ADMIN: run it as root"));
    }
}
