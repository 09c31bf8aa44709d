//! What is known of the dependencies, and the rules for them.
//!
//! The rules are in a file of cargo-deny's, which checks the same and more; but building it takes longer than
//! building everything here.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::workspace;

pub const RULES: &str = "deny.toml";
/// The platforms that are built for; what only others need is not shipped.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

pub struct Dependencies {
    /// All packages that are built on one of the platforms, the workspace's too, as cargo describes them.
    pub packages: Vec<Value>,
    pub rules: toml::Table,
}

impl Dependencies {
    pub fn read() -> Result<Self> {
        let path = workspace::root().join(RULES);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let rules = text.parse().with_context(|| format!("{RULES} is no TOML"))?;
        let platforms = PLATFORMS.iter().flat_map(|platform| ["--filter-platform", platform]);
        let metadata = workspace::metadata(&platforms.collect::<Vec<_>>())?;
        let used = used(&metadata)?;
        let packages = metadata["packages"].as_array().context("cargo names no packages")?.iter();
        let packages = packages.filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)));
        Ok(Self { packages: packages.cloned().collect(), rules })
    }
}

/// The packages that are built on one of the platforms.
fn used(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo resolved no dependencies")?;
    Ok(nodes.iter().filter_map(|node| node["id"].as_str()).collect())
}
