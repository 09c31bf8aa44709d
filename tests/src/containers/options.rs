//! Docker's options, by the script that is shipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::command::output;

/// The script.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/docker/mk-docker-opts.sh");

/// The options for a host, which the script makes of its subnet file, in a network namespace with its routes.
///
/// # Errors
/// The script fails.
pub fn docker_options(mut shell: Command, subnet_file: &Path) -> Result<Vec<String>> {
    let env_file = subnet_file.with_file_name("docker_opts.env");
    output(shell.arg(SCRIPT).arg("-c").arg("-f").arg(subnet_file).arg("-d").arg(&env_file))?;
    let text = fs::read_to_string(&env_file)?;
    let value = text.trim().strip_prefix("DOCKER_OPTS=\"").and_then(|rest| rest.strip_suffix('"'));
    let value = value.with_context(|| format!("no DOCKER_OPTS: {text}"))?;
    Ok(value.split_whitespace().map(str::to_owned).collect())
}
