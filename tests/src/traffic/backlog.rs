//! Packets the machine itself had no time for.

use std::fs;

use anyhow::{Context as _, Result};

/// How many packets the CPUs dropped because their backlog was full: every test host shares the CPUs, and a busy machine
/// loses packets that no network would. See `net.core.netdev_max_backlog`.
///
/// # Errors
/// The kernel does not say.
pub(super) fn backlog_drops() -> Result<u64> {
    let table = fs::read_to_string("/proc/net/softnet_stat").context("reading the CPUs' backlogs")?;
    let dropped = |line: &str| -> Result<u64> {
        let column = line.split_whitespace().nth(1).context("a line of softnet_stat without drops")?;
        Ok(u64::from_str_radix(column, 16)?)
    };
    table.lines().map(dropped).sum()
}
