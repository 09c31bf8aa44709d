//! Installing with apt-get, without questions and without removing anything.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages::Package;
use super::service::HeldServices;
use crate::{privilege, step};

/// What keeps apt from asking, from pulling in recommendations, from removing what conflicts, and from
/// failing because another apt runs.
const OPTIONS: [&str; 6] = [
    "--yes",
    "--no-install-recommends",
    "--no-remove",
    "--option=DPkg::Lock::Timeout=120",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=3",
];

/// apt-get on this machine.
#[derive(Default)]
pub struct Apt {
    /// The lists of packages are as new as this process.
    fresh: bool,
}

impl Apt {
    /// Installs those of `packages` that are missing, and checks that they then are there.
    pub fn install(&mut self, packages: &[Package]) -> Result<()> {
        let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_present()).collect();
        let names: Vec<&str> = missing.iter().map(|package| &*package.name).collect();
        eprintln!("These packages are missing:");
        for package in &missing {
            eprintln!("  {:<18} for {}", package.name, package.purpose);
        }
        if !privilege::is_available() {
            bail!(
                "installing packages needs root, and there is no sudo: as root, run\n    apt-get update && apt-get \
                 install -y --no-install-recommends {}",
                names.join(" ")
            );
        }
        self.refresh()?;
        let held = HeldServices::before(&names)?;
        let mut install = apt_get("install")?;
        install.args(OPTIONS).args(held.options()).args(&names);
        let label = match names.len() {
            1 => format!("Installing {}", names[0]),
            count => format!("Installing {count} packages"),
        };
        let outcome = step::run(&label, install);
        held.release()?;
        outcome?;
        match missing.iter().find(|package| !package.is_present()) {
            Some(package) => {
                bail!("apt-get installed {}, yet there is no {}", package.name, package.proof.shown())
            }
            None => Ok(()),
        }
    }

    /// The version that apt would install, by lists of now: old ones name versions that are not there any more, and keep
    /// silent of new ones. Where this process may not fetch lists, by those there are.
    pub fn candidate(&mut self, package: &str) -> Result<Option<String>> {
        if privilege::is_available() {
            self.refresh()?;
        }
        policy(package)
    }

    /// A fresh machine has no lists of packages, an old one may have lists of files that are gone.
    fn refresh(&mut self) -> Result<()> {
        if !self.fresh {
            privilege::authenticate()?;
            let mut update = apt_get("update")?;
            update.args(OPTIONS);
            step::run("Updating the lists of packages", update)?;
            self.fresh = true;
        }
        Ok(())
    }
}

fn apt_get(verb: &str) -> Result<Command> {
    let mut command = privilege::command("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", verb]);
    Ok(command)
}

fn policy(package: &str) -> Result<Option<String>> {
    let output = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    let output = output.context("cannot run apt-cache")?;
    Ok(candidate(&String::from_utf8_lossy(&output.stdout)))
}

/// The candidate in what `apt-cache policy` says of one package.
fn candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::candidate;

    #[test]
    fn the_candidate_is_read() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
    }

    #[test]
    fn a_package_without_a_version_has_no_candidate() {
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
