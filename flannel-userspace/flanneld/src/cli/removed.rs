//! Flags of earlier flannels.

use super::refusal::Refusal;

/// Flags that flannel has removed, and what to use instead.
const REMOVED: [(&str, &str); 9] = [
    ("etcd-endpoint", "give --etcd-endpoints"),
    ("listen", NO_SERVER),
    ("remote", NO_SERVER),
    ("remote-keyfile", NO_SERVER),
    ("remote-certfile", NO_SERVER),
    ("remote-cafile", NO_SERVER),
    ("networks", ONE_EACH),
    ("watch-networks", ONE_EACH),
    ("subnet-dir", ONE_EACH),
];

const NO_SERVER: &str = "there is no server between daemons and etcd any more: give --etcd-endpoints, \
                         --etcd-keyfile, --etcd-certfile and --etcd-cafile to every daemon";
const ONE_EACH: &str =
    "one daemon serves one network: run one for each, with its own --etcd-prefix and --subnet-file";

/// Refuses a flag of an earlier flannel.
pub(super) fn removed(flag: &str) -> Option<Refusal> {
    let (_, instead) = REMOVED.iter().find(|(removed, _)| *removed == flag)?;
    Some(Refusal::usage(format!("--{flag} was removed from flannel: {instead}")))
}
