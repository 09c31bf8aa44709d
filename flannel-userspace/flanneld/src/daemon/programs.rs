//! A host that takes no programs: uses and reports what works without.

use std::io;
use std::path::Path;

use flannel_common::flow::Bypass;
use flannel_datapath::{DatapathError, Missing, PinDir, Support, Unavailable};
use flannel_model::backend::Kind;
use flannel_observe::{Conditions, Limit};
use tracing::warn;

use super::error::DaemonError;

/// Why no program can be had on this host, if so. Mounts the BPF file system, if necessary.
///
/// # Errors
/// It cannot be mounted, though the daemon may.
pub(super) fn unavailable(pin_dir: &Path) -> Result<Option<Unavailable>, DaemonError> {
    if let Some(reason) = flannel_datapath::unavailable() {
        return Ok(Some(reason));
    }
    match PinDir::mount(pin_dir) {
        Ok(()) => Ok(None),
        Err(DatapathError::Mount { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            Ok(Some(Missing::FileSystem.into()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reports how the backend works without programs. By the returned lock flannelctl finds the daemon.
///
/// # Errors
/// It does not work without; another daemon has the pin directory; programs are pinned there and cannot be taken away.
pub(super) fn go_without(
    reason: &Unavailable,
    backend: Kind,
    pin_dir: &Path,
    conditions: &Conditions,
) -> Result<Option<PinDir>, DaemonError> {
    let instead = instead(backend).ok_or_else(|| DaemonError::NeedsPrograms(backend, reason.clone()))?;
    let pins = match PinDir::open(pin_dir) {
        Err(locked @ DatapathError::Locked { .. }) => return Err(locked.into()),
        Err(error) if PinDir::is_in_use(pin_dir) => {
            let (path, reason) = (pin_dir.to_owned(), reason.clone());
            return Err(DaemonError::Abandoned { path, reason, source: Box::new(error) });
        }
        // Without a BPF file system there is no such directory.
        opened => opened.ok(),
    };
    warn!("eBPF cannot be used: {reason}; {instead}");
    conditions.limit(Limit { without: "programs", reason: format!("{reason}; {instead}") });
    Ok(pins)
}

/// Takes away the programs that an earlier daemon, which could use eBPF, has left. The kernel has all by which they
/// forward, so no packet is lost.
///
/// # Errors
/// One of them cannot be taken away.
pub(super) fn give_up(pins: &PinDir) -> Result<(), DaemonError> {
    if !flannel_datapath::give_up(pins)? {
        return Ok(());
    }
    let pin_dir = pins.path().display();
    warn!(
        "took away the programs of an earlier flanneld, pinned in {pin_dir}: their peers could not be kept up to date"
    );
    Ok(())
}

/// What is done without programs; nothing where that is not enough.
pub(super) const fn instead(backend: Kind) -> Option<&'static str> {
    match backend {
        Kind::Udp => None,
        Kind::Vxlan => Some("forwarding by the kernel's vxlan device, without guard, counters and bypass"),
        Kind::HostGw => Some("forwarding by the kernel's routes, without bypass"),
        Kind::Alloc | Kind::Cloud(_) => Some("which matters to nobody with this backend"),
    }
}

/// Reports what the programs do not do on this kernel.
pub(super) fn limit(backend: Kind, bypass: Bypass, conditions: &Conditions) {
    let has_bypass = backend.has_programs() && bypass != Bypass::Off;
    if !has_bypass || Support::of_this_kernel().check_mtu {
        return;
    }
    let reason = format!(
        "Linux {} has no bpf_check_mtu (5.12), by which programs find out what is too long: every packet goes through the \
         stack",
        flannel_net::release()
    );
    warn!("no bypass: {reason}");
    conditions.limit(Limit { without: "bypass", reason });
}

#[cfg(test)]
mod tests {
    use flannel_datapath::{Missing, Unavailable};
    use flannel_model::backend::Kind;
    use flannel_observe::Conditions;

    use super::go_without;
    use crate::daemon::DaemonError;

    #[test]
    fn udp_needs_programs_and_others_do_not() {
        let reason = Unavailable { release: "6.1.0".to_owned(), missing: Missing::Hook };
        let nowhere = "/nowhere/flannel".as_ref();
        for kind in Kind::ALL {
            let conditions = Conditions::default();
            let outcome = go_without(&reason, kind, nowhere, &conditions);
            let needs = matches!(outcome, Err(DaemonError::NeedsPrograms(..)));
            assert_eq!(needs, kind == Kind::Udp, "{kind}: {outcome:?}");
            assert_eq!(conditions.limits().len(), usize::from(!needs), "{kind}");
        }
    }
}
