//! What the process may do: what it begins with, and what it goes on with.
//!
//! Programs, maps, links, routes and rules take [`NEEDED`] for as long as the daemon runs. Whatever else it was started
//! with is given up before it has a second thread, for the kernel keeps capabilities by thread; and before it reads
//! anything that others write. Nobody who gets hold of the daemon then has more. [`FOR_LOADING`] alone stays until the
//! programs are loaded, with the thread that loads them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;
use tracing::{debug, error, warn};

use crate::daemon::Chain;

/// What forwarding takes: programs and maps, and the network's links and routes.
const NEEDED: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// With it the kernel takes programs as they are. Without, it has the processor wait behind nearly every word that a
/// program writes to its stack, lest speculation read what was there before: a third of the time of a small packet. That
/// is meant for programs of people who are not trusted with the kernel's memory.
const FOR_LOADING: Capability = Capability::CAP_PERFMON;

/// What a daemon is told that may take more.
#[derive(Clone, Debug, Default)]
pub struct Needs<'a> {
    /// Files it reads again and again.
    pub files: Vec<&'a Path>,
    /// Whether it may run iptables.
    pub iptables: bool,
}

/// The process may not do its work.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel does not tell.
    #[error("cannot read this process's capabilities")]
    Unknown(#[source] CapsError),
    /// Something is missing.
    #[error(
        "flanneld lacks {}: run it as root, or grant the capabilities (systemd: AmbientCapabilities=, \
         Kubernetes: securityContext.capabilities.add)",
        names(.0)
    )]
    Missing(Vec<Capability>),
    /// The kernel keeps what is to be given up.
    #[error("cannot give up the capabilities that are not needed any more")]
    Kept(#[source] CapsError),
}

fn names<'a>(capabilities: impl IntoIterator<Item = &'a Capability>) -> String {
    let mut names: Vec<String> = capabilities.into_iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.join(" and ")
}

/// Checks that the process holds the capabilities it needs, and names those it does not.
pub fn check() -> Result<(), PrivilegeError> {
    let held = read(CapSet::Effective)?;
    let missing: Vec<Capability> = NEEDED.into_iter().filter(|needed| !held.contains(needed)).collect();
    if missing.is_empty() { Ok(()) } else { Err(PrivilegeError::Missing(missing)) }
}

/// Gives up every capability of this thread, of threads and programs it starts, but [`NEEDED`] and what `needs` takes.
/// This thread keeps [`FOR_LOADING`], if it has it, until [`settle`]; others call that when they begin.
///
/// # Errors
/// The kernel keeps them.
pub fn confine(needs: &Needs<'_>) -> Result<(), PrivilegeError> {
    let held = read(CapSet::Permitted)?;
    let kept: CapsHashSet = NEEDED.into_iter().chain(extra(needs, &held)?).collect();
    // Of what programs may gain that this one starts; it takes a capability itself.
    if read(CapSet::Effective)?.contains(&Capability::CAP_SETPCAP) {
        for capability in read(CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(PrivilegeError::Kept)?;
        }
    }
    // Programs started by a user who is not root have what is ambient, and that must be inheritable.
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(PrivilegeError::Kept)?;
    let for_loading = held.contains(&FOR_LOADING).then_some(FOR_LOADING);
    let own: CapsHashSet = kept.iter().copied().chain(for_loading).collect();
    for (set, kept) in [
        (CapSet::Inheritable, &kept),
        (CapSet::Effective, &own),
        (CapSet::Permitted, &own),
        (CapSet::Ambient, &kept),
    ] {
        caps::set(None, set, kept).map_err(PrivilegeError::Kept)?;
    }
    debug!("going on with {} alone", names(&kept));
    Ok(())
}

/// Gives up [`FOR_LOADING`] of this thread, if it has it.
///
/// # Errors
/// The kernel keeps it.
pub fn settle() -> Result<(), PrivilegeError> {
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, FOR_LOADING).map_err(PrivilegeError::Kept)?;
    }
    Ok(())
}

/// What is kept beyond [`NEEDED`], if it is held.
fn extra(needs: &Needs<'_>, held: &CapsHashSet) -> Result<Vec<Capability>, PrivilegeError> {
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
    if let Some(file) = unreadable(&needs.files)? {
        extra.push(Capability::CAP_DAC_READ_SEARCH);
        warn!(
            file = %file.display(),
            "keeping CAP_DAC_READ_SEARCH, without which flanneld may not read the file: let the user it runs as own it"
        );
    }
    extra.retain(|capability| held.contains(capability));
    Ok(extra)
}

/// What another thread of the daemon begins with: it loads no programs.
pub fn enter_thread() {
    if let Err(error) = settle() {
        error!("{}", Chain(&error));
    }
}

/// A file that can be read now, and not with [`NEEDED`] alone.
fn unreadable<'a>(files: &[&'a Path]) -> Result<Option<&'a Path>, PrivilegeError> {
    let effective = read(CapSet::Effective)?;
    let readable: Vec<&Path> = files.iter().copied().filter(|file| File::open(file).is_ok()).collect();
    caps::set(None, CapSet::Effective, &HashSet::from(NEEDED)).map_err(PrivilegeError::Kept)?;
    let is_denied =
        |file: &&Path| File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    let denied = readable.into_iter().find(is_denied);
    caps::set(None, CapSet::Effective, &effective).map_err(PrivilegeError::Kept)?;
    Ok(denied)
}

/// Whether the iptables on PATH opens a raw socket to talk to the kernel. One that is not there does not.
fn iptables_is_legacy() -> bool {
    let version = Command::new("iptables").arg("--version").output();
    version.is_ok_and(|output| output.status.success() && is_legacy(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether somebody uses the legacy variant all the same: then its rules have to be looked at. Without tables that takes
/// nothing.
fn has_legacy_tables() -> bool {
    fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|tables| !tables.trim().is_empty())
}

/// Only the other variant has always said which it is.
fn is_legacy(version: &str) -> bool {
    !version.contains("nf_tables")
}

fn read(set: CapSet) -> Result<CapsHashSet, PrivilegeError> {
    caps::read(None, set).map_err(PrivilegeError::Unknown)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::path::Path;
    use std::thread;

    use caps::{CapSet, Capability, CapsHashSet};
    use rstest::rstest;

    use super::{FOR_LOADING, NEEDED, Needs, PrivilegeError, confine, is_legacy, settle};

    #[test]
    fn missing_capabilities_are_named() {
        let error = PrivilegeError::Missing(vec![Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        assert!(error.to_string().starts_with("flanneld lacks CAP_BPF and CAP_NET_ADMIN: run it as root"));
    }

    #[rstest]
    #[case("iptables v1.8.9 (nf_tables)\n", false)]
    #[case("iptables v1.8.9 (legacy)\n", true)]
    #[case("iptables v1.6.1\n", true)]
    fn the_variant_of_iptables(#[case] version: &str, #[case] legacy: bool) {
        assert_eq!(is_legacy(version), legacy);
    }

    /// The sets of a thread that is confined and has loaded its programs.
    fn confined(needs: &Needs<'_>) -> Vec<CapsHashSet> {
        let confine = || {
            confine(needs).unwrap();
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert!(caps::read(None, set).unwrap().contains(&FOR_LOADING));
            }
            settle().unwrap();
            let sets = [
                CapSet::Effective,
                CapSet::Permitted,
                CapSet::Inheritable,
                CapSet::Bounding,
                CapSet::Ambient,
            ];
            sets.map(|set| caps::read(None, set).unwrap()).to_vec()
        };
        thread::scope(|scope| scope.spawn(confine).join()).unwrap()
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        for set in confined(&Needs::default()) {
            assert_eq!(set, HashSet::from(NEEDED));
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_read_on() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pem");
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let needs = |file| Needs { files: vec![file], iptables: false };
        let has = |sets: Vec<CapsHashSet>| {
            sets.iter().all(|set| set.contains(&Capability::CAP_DAC_READ_SEARCH) && set.len() == 3)
        };
        assert!(!has(confined(&needs(&key))), "a file of one's own takes nothing");
        assert!(!has(confined(&needs(Path::new("/nowhere")))), "nor does one that is not there");
        chown(&key, Some(65534), None).unwrap();
        assert!(has(confined(&needs(&key))));
    }
}
