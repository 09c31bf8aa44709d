//! The command line of `flanneld`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use flanneld::cli::{self, Options};

use crate::limit::timed;

/// Reads the lines of `input` as words. Options that are accepted keep their bounds; a refusal says why.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    // It names a file of this machine, which would be read.
    if input.windows(13).any(|part| part == b"password-file") {
        return Ok(());
    }
    let given = input.split(|byte| *byte == b'\n').filter(|_| !input.is_empty());
    let words: Vec<OsString> = std::iter::once(&b"flanneld"[..])
        .chain(given)
        .map(|word| OsStr::from_bytes(word).to_owned())
        .collect();
    match timed(|| cli::parse(words.clone()))? {
        Ok(options) => check_options(&options),
        Err(refusal) => {
            ensure!(!refusal.to_string().is_empty(), "refused without a reason");
            Ok(())
        }
    }
}

fn check_options(options: &Options) -> Result<()> {
    let Options { lease, deletion_policy, etcd, .. } = options;
    let day = Duration::from_secs(24 * 60 * 60);
    ensure!(lease.ttl >= Duration::from_secs(1) && lease.ttl.subsec_nanos() == 0, "{lease:?}");
    ensure!((Duration::from_secs(60)..day).contains(&lease.renew_margin), "{lease:?}");
    ensure!(deletion_policy.threshold <= 100 && deletion_policy.hold <= day, "{deletion_policy:?}");
    ensure!(!etcd.endpoints.is_empty(), "no endpoint of etcd");
    for bridge in &options.pod_bridges {
        ensure!((1..16).contains(&bridge.len()), "{bridge:?} is no name of an interface");
    }
    Ok(())
}
