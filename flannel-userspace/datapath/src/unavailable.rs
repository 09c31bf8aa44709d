//! Whether this host takes eBPF programs at all. Checked before anything is changed.

use std::fmt;
use std::io;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{is_map_supported, is_program_supported};
use nix::errno::Errno;
use thiserror::Error;

use super::attach::tcx_programs;

/// This host takes no eBPF program: what is missing, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Linux {release} {missing}")]
pub struct Unavailable {
    /// Release of the kernel.
    pub release: String,
    /// What is missing.
    pub missing: Missing,
}

/// What programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `CAP_BPF` (5.8).
    Capability,
    /// The same, which this process was not granted.
    Rights,
    /// A BPF file system for pins, and the privilege to mount one.
    FileSystem,
    /// `bpf()`.
    Syscall,
    /// Permission to use it.
    Permission(Errno),
    /// Programs of type `sched_cls`.
    Classifier,
    /// TCX or clsact.
    Hook,
}

/// What a manifest for Kubernetes lacks that was made for stock flannel.
const MANIFEST: &str = "in Kubernetes, have the container's securityContext say `capabilities: {add: [NET_ADMIN, NET_RAW, \
    BPF, PERFMON]}`, add `- {name: bpf, mountPath: /sys/fs/bpf}` to its volumeMounts and `- {name: bpf, hostPath: {path: \
    /sys/fs/bpf, type: Directory}}` to the pod's volumes";

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capability => "knows no CAP_BPF (5.8) and is too old for flannel's eBPF programs: use a newer kernel",
            Self::Rights => {
                return write!(
                    f,
                    "takes eBPF programs only from who has CAP_BPF, which flanneld was not granted (systemd: \
                     AmbientCapabilities=CAP_BPF); {MANIFEST}"
                );
            }
            Self::FileSystem => {
                return write!(
                    f,
                    "has no BPF file system at /sys/fs/bpf to pin eBPF programs in, and flanneld lacks CAP_SYS_ADMIN to \
                     mount it (mount -t bpf bpf /sys/fs/bpf); {MANIFEST}"
                );
            }
            Self::Syscall => {
                "has no bpf(): use a kernel with CONFIG_BPF_SYSCALL; in a container, allow bpf() in its seccomp profile"
            }
            Self::Permission(errno) => {
                return write!(
                    f,
                    "refuses bpf() ({errno}) though the capabilities are there, so a seccomp filter or a security \
                     module does: allow it there (systemd: SystemCallFilter=, containers: the seccomp profile; \
                     SELinux: class bpf)"
                );
            }
            Self::Classifier => "takes no programs of type sched_cls: use a kernel with CONFIG_NET and CONFIG_BPF_SYSCALL",
            Self::Hook => {
                "has neither TCX (6.6) nor programs under clsact: use a kernel with CONFIG_NET_SCH_INGRESS and \
                 CONFIG_NET_CLS_BPF, or make its modules sch_ingress and cls_bpf available"
            }
        })
    }
}

impl From<Missing> for Unavailable {
    fn from(missing: Missing) -> Self {
        Self { release: flannel_net::release(), missing }
    }
}

/// Why this host takes no program, if so. The probes leave nothing behind. Probing clsact takes all privileges; with
/// fewer, its absence shows when programs are attached.
#[must_use]
pub fn unavailable() -> Option<Unavailable> {
    missing().map(Unavailable::from)
}

fn missing() -> Option<Missing> {
    if !flannel_privileges::has_bpf_capability() {
        return Some(Missing::Capability);
    }
    if !flannel_privileges::may_use_bpf() {
        return Some(Missing::Rights);
    }
    if let Err(error) = is_map_supported(MapType::Array) {
        return by_error(&error.io_error);
    }
    match is_program_supported(ProgramType::SchedClassifier) {
        Ok(true) => {}
        Ok(false) => return Some(Missing::Classifier),
        Err(ProgramError::SyscallError(error)) => return by_error(&error.io_error),
        Err(_) => return None,
    }
    let has_tcx = tcx_programs(LOOPBACK, "vxlan_decap").is_ok_and(|programs| programs.is_some());
    (!has_tcx && flannel_net::knows_clsact() == Some(false)).then_some(Missing::Hook)
}

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Other errors show, and are reported, when programs are loaded.
fn by_error(error: &io::Error) -> Option<Missing> {
    match error.raw_os_error().map(Errno::from_raw)? {
        Errno::ENOSYS => Some(Missing::Syscall),
        errno @ (Errno::EPERM | Errno::EACCES) => Some(Missing::Permission(errno)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use nix::errno::Errno;
    use rstest::rstest;

    use super::{Missing, Unavailable, by_error, unavailable};

    #[test]
    fn this_host_takes_programs() {
        assert_eq!(unavailable(), None);
    }

    #[rstest]
    #[case(Errno::ENOSYS, "Linux 6.1.0 has no bpf(): ")]
    #[case(Errno::EPERM, "Linux 6.1.0 refuses bpf() (EPERM: ")]
    #[case(Errno::EACCES, "Linux 6.1.0 refuses bpf() (EACCES: ")]
    fn what_the_system_call_answers(#[case] errno: Errno, #[case] sentence: &str) {
        let missing = by_error(&io::Error::from(errno)).unwrap();
        let text = Unavailable { release: "6.1.0".to_owned(), missing }.to_string();
        assert!(text.starts_with(sentence), "{text}");
    }

    #[test]
    fn an_error_of_another_kind_says_nothing_about_the_host() {
        assert_eq!(by_error(&io::Error::from(Errno::ENOMEM)), None);
    }

    #[rstest]
    #[case(Missing::Rights)]
    #[case(Missing::FileSystem)]
    fn the_lines_for_a_manifest_are_given(#[case] missing: Missing) {
        let text = Unavailable { release: "6.1.0".to_owned(), missing }.to_string();
        for line in [
            "capabilities: {add: [NET_ADMIN, NET_RAW, BPF, PERFMON]}",
            "- {name: bpf, mountPath: /sys/fs/bpf}",
            "- {name: bpf, hostPath: {path: /sys/fs/bpf, type: Directory}}",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn an_old_kernel_is_not_told_to_be_root() {
        let text = Unavailable { release: "5.4.0".to_owned(), missing: Missing::Capability }.to_string();
        assert_eq!(
            text,
            "Linux 5.4.0 knows no CAP_BPF (5.8) and is too old for flannel's eBPF programs: use a newer kernel"
        );
    }
}
