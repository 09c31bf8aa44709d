//! No crate is built in two versions, but for those that deny.toml names.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::dependencies::{Dependencies, RULES};

/// `[bans]`, as far as it is checked here.
#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

/// A version that may stand beside another one.
#[derive(Deserialize)]
struct Skip {
    /// `name@version`.
    #[serde(rename = "crate")]
    version: String,
}

/// Checks every dependency of the workspace.
pub fn check(dependencies: &Dependencies) -> Result<()> {
    let bans = dependencies.rules.get("bans").with_context(|| format!("{RULES} has no [bans]"))?;
    let bans: Bans = bans.clone().try_into().with_context(|| format!("[bans] in {RULES} cannot be read"))?;
    let skipped = bans.skip.into_iter().map(|skip| skip.version).collect();
    let versions = dependencies.packages.iter().filter_map(|package| {
        Some((package["name"].as_str()?.to_owned(), package["version"].as_str()?.to_owned()))
    });
    let faults = faults(&versions.collect(), &skipped);
    if !faults.is_empty() {
        bail!("these versions break the rules of {RULES}:\n    {}", faults.join("\n    "));
    }
    Ok(())
}

/// `versions` are pairs of a name and a version.
fn faults(versions: &BTreeSet<(String, String)>, skipped: &BTreeSet<String>) -> Vec<String> {
    let shown = |(name, version): &(String, String)| format!("{name}@{version}");
    let others: Vec<&(String, String)> =
        versions.iter().filter(|version| !skipped.contains(&shown(version))).collect();
    let doubled = others
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .map(|pair| format!("{} stands beside {}", shown(pair[0]), shown(pair[1])));
    let all: BTreeSet<String> = versions.iter().map(shown).collect();
    let gone = skipped.difference(&all).map(|version| format!("{version} is skipped, and is not there"));
    doubled.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::faults;

    fn faults_of(versions: &[(&str, &str)], skipped: &[&str]) -> Vec<String> {
        let versions =
            versions.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        let skipped: BTreeSet<String> = skipped.iter().map(|version| (*version).to_owned()).collect();
        faults(&versions, &skipped)
    }

    #[test]
    fn a_crate_has_one_version_and_those_that_are_skipped() {
        let versions = [("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")];
        assert_eq!(faults_of(&versions, &[]), ["a@1.0.0 stands beside a@2.0.0"]);
        assert!(faults_of(&versions, &["a@1.0.0"]).is_empty());
    }

    #[test]
    fn what_is_skipped_must_be_there() {
        assert_eq!(faults_of(&[("a", "1.0.0")], &["b@1.0.0"]), ["b@1.0.0 is skipped, and is not there"]);
    }
}
