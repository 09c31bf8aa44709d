//! The state file an earlier daemon left.

use anyhow::{Context as _, Result, ensure};
use flannel_control::remembered::Remembered;
use flannel_model::backend::Kind;
use flannel_model::lease::Attributes;

use crate::file::Memory;
use crate::limit::timed;
use crate::peers::Hosts;

/// Whatever can be read can be used, and is the same when it is written and read again.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    let file = Memory::new(input)?;
    // A file that cannot be parsed is reported with the reason and written again.
    let Ok(Some(remembered)) = timed(|| Remembered::read(file.path()))? else { return Ok(()) };
    let _ = remembered.age();
    let own = remembered.own.lease(Attributes::new(remembered.own.public));
    ensure!(own.subnets == remembered.own.subnets, "{own:?}");
    for kind in Kind::ALL {
        let mut hosts = Hosts::new(kind)?;
        hosts.list(&remembered.snapshot(kind))?;
    }
    let written = Memory::new(&serde_json::to_vec(&remembered)?)?;
    let again = Remembered::read(written.path())?.context("the version is another one")?;
    ensure!(again == remembered, "{remembered:?} is read as {again:?}");
    Ok(())
}
