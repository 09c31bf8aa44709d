//! Installing with apt-get, without questions and without removing anything.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};

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

/// By itself, `apt-get update` succeeds also where it has fetched nothing.
const EVERY_LIST: &str = "--option=APT::Update::Error-Mode=any";

/// How long another apt has to come to its end.
const OTHERS_TIME: Duration = Duration::from_mins(2);
/// How long is waited before it is tried again.
const PAUSE: Duration = Duration::from_secs(3);

/// apt-get on this machine.
#[derive(Default)]
pub struct Apt {
    lists: Lists,
}

/// What is known of this machine's lists of packages.
#[derive(Default)]
enum Lists {
    /// Nothing, not even that there are any.
    #[default]
    Unasked,
    /// They are as new as this process.
    Fresh,
    /// They may be old, because they could not be fetched.
    Old { why: String },
}

impl Apt {
    /// Installs those of `packages` that are missing, and checks that they then are there.
    pub fn install(&mut self, packages: &[Package]) -> Result<()> {
        let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_present()).collect();
        eprintln!("These packages are missing:");
        for package in &missing {
            eprintln!("  {:<18} for {}", package.name, package.purpose);
        }
        if !privilege::is_available() {
            let names: Vec<&str> = missing.iter().map(|package| &*package.name).collect();
            bail!(
                "installing packages needs root, and there is no sudo: as root, run\n    apt-get update && apt-get \
                 install -y --no-install-recommends {}",
                names.join(" ")
            );
        }
        self.refresh()?;
        let names = missing.iter().map(|package| name(package, |name| Ok(policy(name)?.is_some())));
        let names: Vec<&str> = names.collect::<Result<_>>()?;
        let held = HeldServices::before(&names)?;
        let mut install = apt_get("install");
        install.args(held.options()).args(&names);
        let label = match names.len() {
            1 => format!("Installing {}", names[0]),
            count => format!("Installing {count} packages"),
        };
        let outcome = step::run(&label, privilege::as_root(install)?);
        held.release()?;
        outcome.with_context(|| self.lists.remedy())?;
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

    /// A fresh machine has no lists of packages, an old one may have lists of files that are gone. A list that does not
    /// come is no failure yet: it may be one that nothing here needs, and if it is not, installing fails.
    fn refresh(&mut self) -> Result<()> {
        if matches!(self.lists, Lists::Unasked) {
            privilege::authenticate()?;
            self.lists = match update() {
                Ok(()) => Lists::Fresh,
                Err(error) => {
                    eprintln!("warning: what follows goes by lists of packages that may be old: {error:#}");
                    Lists::Old { why: format!("{error:#}") }
                }
            };
        }
        Ok(())
    }
}

/// Fetches the lists. For another apt that does, as a system's own does after its start, apt itself does not wait.
fn update() -> Result<()> {
    let started = Instant::now();
    loop {
        let mut update = apt_get("update");
        update.arg(EVERY_LIST);
        match step::run("Updating the lists of packages", privilege::as_root(update)?) {
            Err(error) if is_locked(&error) && started.elapsed() < OTHERS_TIME => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Whether a failure of apt-get says that another one is at work.
fn is_locked(error: &Error) -> bool {
    error.to_string().contains("E: Could not get lock ")
}

impl Lists {
    /// What a person does where a package cannot be installed.
    fn remedy(&self) -> String {
        match self {
            Self::Old { why } => {
                format!(
                    "have `apt-get update` succeed, then run this again: the lists may be old, because {why}"
                )
            }
            Self::Unasked | Self::Fresh => {
                "have apt-get install these packages, then run this again".to_owned()
            }
        }
    }
}

/// What this distribution calls a package: by the first of its names that can be installed.
fn name(package: &Package, is_offered: impl Fn(&str) -> Result<bool>) -> Result<&str> {
    match package.otherwise {
        Some(otherwise) if !is_offered(&package.name)? => Ok(otherwise),
        _ => Ok(&package.name),
    }
}

fn apt_get(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").arg(verb).args(OPTIONS);
    command
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
    use anyhow::anyhow;

    use super::{Lists, candidate, is_locked, name};
    use crate::install::packages::TOOLS;

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

    #[test]
    fn another_name_is_taken_only_where_the_first_is_not_offered() {
        let bpftool = TOOLS.iter().find(|package| package.name == "bpftool").unwrap();
        assert_eq!(name(bpftool, |_| Ok(true)).unwrap(), "bpftool");
        assert_eq!(name(bpftool, |_| Ok(false)).unwrap(), "linux-tools-generic");
        let gcc = TOOLS.iter().find(|package| package.name == "gcc").unwrap();
        assert_eq!(name(gcc, |_| Ok(false)).unwrap(), "gcc");
    }

    #[test]
    fn a_failure_by_old_lists_says_why_they_are_old() {
        let remedy = Lists::Old { why: "no network".to_owned() }.remedy();
        assert!(remedy.contains("`apt-get update`") && remedy.ends_with("no network"), "{remedy}");
        assert!(!Lists::Fresh.remedy().contains("update"));
    }

    #[test]
    fn only_a_lock_of_another_apt_is_waited_for() {
        let said = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)";
        assert!(is_locked(&anyhow!("apt-get update failed (exit status: 100); it said:\n    {said}")));
        assert!(!is_locked(&anyhow!("E: Failed to fetch http://deb.debian.org/debian/dists/sid/InRelease")));
    }
}
