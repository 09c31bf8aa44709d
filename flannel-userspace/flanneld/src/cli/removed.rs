//! Flags of earlier flannels.

use super::refusal::Refusal;

/// Flags that flannel has removed, and what to use instead. Of names with several words, those with hyphens.
const REMOVED: [(&str, &str); 21] = [
    ("etcd-endpoint", "give --etcd-endpoints"),
    ("listen", NO_SERVER),
    ("remote", NO_SERVER),
    ("remote-keyfile", NO_SERVER),
    ("remote-certfile", NO_SERVER),
    ("remote-cafile", NO_SERVER),
    ("networks", ONE_EACH),
    ("watch-networks", ONE_EACH),
    ("subnet-dir", ONE_EACH),
    ("logtostderr", TO_STDERR),
    ("alsologtostderr", TO_STDERR),
    ("stderrthreshold", TO_STDERR),
    ("log-dir", NO_LOG_FILE),
    ("log-file", NO_LOG_FILE),
    ("log-file-max-size", NO_LOG_FILE),
    ("log-link", NO_LOG_FILE),
    ("logbuflevel", NO_LOG_FILE),
    ("one-output", TO_STDERR),
    ("skip-headers", NO_HEADERS),
    ("skip-log-headers", NO_LOG_FILE),
    ("add-dir-header", NO_HEADERS),
];

const TO_STDERR: &str = "the log always goes to standard error, and -v says how much of it; leave it out";
const NO_LOG_FILE: &str = "there are no log files, the log goes to standard error; leave it out, and have the service \
                           manager or the shell write it to a file";
const NO_HEADERS: &str = "--log-format chooses between text and json; leave it out";

const NO_SERVER: &str = "there is no server between daemons and etcd any more: give --etcd-endpoints, \
                         --etcd-keyfile, --etcd-certfile and --etcd-cafile to every daemon";
const ONE_EACH: &str =
    "one daemon serves one network: run one for each, with its own --etcd-prefix and --subnet-file";

/// Refuses a flag of an earlier flannel.
pub(super) fn removed(flag: &str) -> Option<Refusal> {
    let instead = instead_of(flag)?;
    Some(Refusal::usage(format!("--{flag} was removed from flannel: {instead}")))
}

/// What to use instead of a flag of an earlier flannel.
pub(super) fn instead_of(flag: &str) -> Option<&'static str> {
    let name = flag.replace('_', "-");
    REMOVED.iter().find(|(removed, _)| *removed == name).map(|(_, instead)| *instead)
}
