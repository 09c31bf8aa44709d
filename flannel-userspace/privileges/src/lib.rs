//! The privileges of the process: those it starts with, and those it keeps.
//!
//! Programs, maps, links, routes and rules take [`NEEDED`] for as long as the daemon runs. Whatever else it was started
//! with is dropped before it has a second thread, because capabilities belong to threads, and before it reads anything
//! that others write. So whoever takes over the daemon has no more. The thread that loads programs keeps one more,
//! permitted but not effective: see [`while_loading`].
//!
//! Capabilities and limits of the process live here; the operations that need them do not.

mod loading;
mod memory;

use std::fs;
use std::process::Command;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;
use tracing::{debug, warn};

use loading::FOR_LOADING;
pub use loading::{can_load_fast, enter_thread, while_loading};
pub use memory::{MemoryLimit, raise_memory_limit};

/// What forwarding takes: programs and maps, and the network's links and routes.
const NEEDED: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// Without it nothing is done at all; without the other one, the kernel forwards by itself.
const INDISPENSABLE: Capability = Capability::CAP_NET_ADMIN;

/// Settings that may need more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Whether it reads files again and again that others may replace, and may own.
    pub reads_files: bool,
    /// Whether it may run iptables.
    pub iptables: bool,
}

/// The process may not do its work.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel does not report them.
    #[error("cannot read this process's capabilities")]
    Unknown(#[source] CapsError),
    /// Something is missing.
    #[error(
        "flanneld lacks {}: run it as root, or grant the capabilities (systemd: AmbientCapabilities=, \
         Kubernetes: securityContext.capabilities.add)",
        names(.0)
    )]
    Missing(Vec<Capability>),
    /// The kernel does not drop them.
    #[error("cannot give up the capabilities that are not needed any more")]
    Kept(#[source] CapsError),
}

fn names<'a>(capabilities: impl IntoIterator<Item = &'a Capability>) -> String {
    let mut names: Vec<String> = capabilities.into_iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.join(" and ")
}

/// Whether the kernel knows a capability for programs and maps alone (5.8).
#[must_use]
pub fn has_bpf_capability() -> bool {
    caps::runtime::thread_all_supported().contains(&Capability::CAP_BPF)
}

/// Whether the process may make programs and maps.
#[must_use]
pub fn may_use_bpf() -> bool {
    read(CapSet::Effective).is_ok_and(|held| held.contains(&Capability::CAP_BPF))
}

/// Checks that the process may change the network's links and routes. What it lacks for programs is reported where they
/// are looked for.
///
/// # Errors
/// It may not.
pub fn check() -> Result<(), PrivilegeError> {
    if read(CapSet::Effective)?.contains(&INDISPENSABLE) {
        Ok(())
    } else {
        Err(PrivilegeError::Missing(vec![INDISPENSABLE]))
    }
}

/// Drops every capability of this thread, and of threads and programs it starts, except [`NEEDED`] and those for
/// `needs`. This thread keeps the one for [`while_loading`], if it has it; others drop that by [`enter_thread`].
///
/// # Errors
/// The kernel does not drop them.
pub fn confine(needs: Needs) -> Result<(), PrivilegeError> {
    let held = read(CapSet::Permitted)?;
    let kept: CapsHashSet = NEEDED.into_iter().chain(extra(needs, &held)?).collect();
    // The bounding set, from which programs started by this one may gain; dropping from it takes a capability itself.
    if read(CapSet::Effective)?.contains(&Capability::CAP_SETPCAP) {
        for capability in read(CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(PrivilegeError::Kept)?;
        }
    }
    // Programs started by a user other than root get the ambient set, which must be inheritable.
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(PrivilegeError::Kept)?;
    let for_loading = held.contains(&FOR_LOADING).then_some(FOR_LOADING);
    let own: CapsHashSet = kept.iter().copied().chain(for_loading).collect();
    for (set, kept) in [
        (CapSet::Inheritable, &kept),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &own),
        (CapSet::Ambient, &kept),
    ] {
        caps::set(None, set, kept).map_err(PrivilegeError::Kept)?;
    }
    debug!("continuing with {} alone", names(&kept));
    Ok(())
}

/// What is kept besides [`NEEDED`], if the process has it.
fn extra(needs: Needs, held: &CapsHashSet) -> Result<Vec<Capability>, PrivilegeError> {
    let mut extra = Vec::new();
    if needs.iptables && (iptables_is_legacy() || has_legacy_tables()) {
        extra.push(Capability::CAP_NET_RAW);
        if !held.contains(&Capability::CAP_NET_RAW) {
            warn!(
                "iptables' legacy variant takes CAP_NET_RAW, which flanneld lacks: grant it, or have iptables-nft be \
                 used (EnableNFTables in the network's configuration, or update-alternatives --config iptables)"
            );
        }
    }
    // Whose the files are may change with the next certificate or password.
    if needs.reads_files {
        extra.push(Capability::CAP_DAC_READ_SEARCH);
    }
    extra.retain(|capability| held.contains(capability));
    Ok(extra)
}

/// Whether the iptables on PATH opens a raw socket to talk to the kernel. One that is not there does not.
fn iptables_is_legacy() -> bool {
    let version = Command::new("iptables").arg("--version").output();
    version.is_ok_and(|output| output.status.success() && is_legacy(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether the legacy variant is in use anyway: then its rules have to be read. Without tables that needs nothing.
fn has_legacy_tables() -> bool {
    fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|tables| !tables.trim().is_empty())
}

/// Only the other variant has always named itself.
fn is_legacy(version: &str) -> bool {
    !version.contains("nf_tables")
}

fn read(set: CapSet) -> Result<CapsHashSet, PrivilegeError> {
    caps::read(None, set).map_err(PrivilegeError::Unknown)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::thread;

    use caps::{CapSet, Capability, CapsHashSet};
    use rstest::rstest;

    use super::{
        FOR_LOADING, INDISPENSABLE, NEEDED, Needs, PrivilegeError, check, confine, enter_thread, is_legacy,
        may_use_bpf, while_loading,
    };

    #[test]
    fn missing_capabilities_are_named() {
        let error = PrivilegeError::Missing(vec![INDISPENSABLE]);
        assert!(error.to_string().starts_with("flanneld lacks CAP_NET_ADMIN: run it as root"));
    }

    #[test]
    fn what_only_programs_take_is_not_asked_for() {
        let without = |dropped| {
            let look = move || {
                caps::drop(None, CapSet::Effective, dropped).unwrap();
                (check().is_ok(), may_use_bpf())
            };
            thread::scope(|scope| scope.spawn(look).join()).unwrap()
        };
        assert_eq!(without(Capability::CAP_BPF), (true, false));
        assert_eq!(without(INDISPENSABLE), (false, true));
    }

    #[rstest]
    #[case("iptables v1.8.9 (nf_tables)\n", false)]
    #[case("iptables v1.8.9 (legacy)\n", true)]
    #[case("iptables v1.6.1\n", true)]
    fn the_variant_of_iptables(#[case] version: &str, #[case] legacy: bool) {
        assert_eq!(is_legacy(version), legacy);
    }

    const SETS: [CapSet; 5] =
        [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Bounding, CapSet::Ambient];

    /// What `look` returns in a confined thread.
    fn confined<T: Send>(needs: Needs, look: impl FnOnce() -> T + Send) -> T {
        let confined = || {
            confine(needs).unwrap();
            look()
        };
        thread::scope(|scope| scope.spawn(confined).join()).unwrap()
    }

    fn sets() -> [CapsHashSet; 5] {
        SETS.map(|set| caps::read(None, set).unwrap())
    }

    fn two_and(more: &[Capability]) -> CapsHashSet {
        NEEDED.iter().chain(more).copied().collect()
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let [effective, permitted, others @ ..] = confined(Needs::default(), sets);
        assert_eq!(effective, two_and(&[]));
        assert_eq!(permitted, two_and(&[FOR_LOADING]), "at rest");
        for set in others {
            assert_eq!(set, two_and(&[]));
        }
    }

    #[test]
    fn loading_has_its_capability_again_and_again() {
        confined(Needs::default(), || {
            for _ in 0..2 {
                let [effective, ..] = while_loading(sets);
                assert_eq!(effective, two_and(&[FOR_LOADING]));
                let [effective, ..] = sets();
                assert_eq!(effective, two_and(&[]));
            }
        });
    }

    #[test]
    fn another_thread_has_nothing_for_loading() {
        confined(Needs::default(), || {
            enter_thread();
            for set in sets().into_iter().chain(while_loading(sets)) {
                assert_eq!(set, two_and(&[]));
            }
        });
    }

    #[test]
    fn files_that_others_replace_are_read_whosever_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pem");
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let needs = |reads_files| Needs { reads_files, iptables: false };
        let is_readable = |needs| confined(needs, || File::open(&key).is_ok());
        let kept = confined(needs(true), sets).map(|set| set.contains(&Capability::CAP_DAC_READ_SEARCH));
        assert_eq!(kept, [true; 5], "in every set");
        chown(&key, Some(65534), None).unwrap();
        assert!(is_readable(needs(true)));
        assert!(!is_readable(needs(false)), "nobody asked for it");
    }
}
