//! Running a command to its end.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a command to its end and returns what it prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::piped()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).into_owned());
        bail!("{command:?} failed ({}): {}", output.status, said.concat().trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
