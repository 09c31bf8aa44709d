//! What a daemon does where the kernel or the host lacks something, forced on every daemon of a run: the suite
//! `network` must not depend on it.

use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Names the fallback that is forced; `cargo xtask test --fallback` sets it.
const VARIABLE: &str = "FLANNEL_TEST_FALLBACK";

/// Where the kernel or the host lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// No TCX: filters under clsact.
    Clsact,
    /// Nothing bypasses the stack.
    NoBypass,
    /// No `nf_tables`: iptables' legacy variant.
    LegacyIptables,
}

impl Fallback {
    /// The one that is forced.
    ///
    /// # Errors
    /// There is none of the name in the environment.
    pub fn forced() -> Result<Option<Self>> {
        match env::var(VARIABLE).as_deref() {
            Err(_) => Ok(None),
            Ok("clsact") => Ok(Some(Self::Clsact)),
            Ok("no-bypass") => Ok(Some(Self::NoBypass)),
            Ok("legacy-iptables") => Ok(Some(Self::LegacyIptables)),
            Ok(other) => bail!("{VARIABLE} names no fallback: {other}"),
        }
    }

    /// Forces it on a daemon with `flags`, unless these say otherwise, and with files in `directory`.
    ///
    /// # Errors
    /// The host has no legacy variant.
    pub fn force(self, command: &mut Command, flags: &mut Vec<String>, directory: &Path) -> Result<()> {
        match self {
            Self::Clsact => choose(flags, "--datapath-hook", "clsact"),
            Self::NoBypass => choose(flags, "--pod-bypass", "off"),
            Self::LegacyIptables => {
                let programs = directory.join("bin");
                link_legacy(&programs).context("iptables' legacy variant")?;
                let path = env::var("PATH").context("PATH")?;
                command.env("PATH", format!("{}:{path}", programs.display()));
            }
        }
        Ok(())
    }
}

/// Gives a flag that value, unless it has another one than `auto`.
fn choose(flags: &mut Vec<String>, flag: &str, value: &str) {
    flags.retain(|told| *told != format!("{flag}=auto"));
    if !flags.iter().any(|told| told.starts_with(&format!("{flag}="))) {
        flags.push(format!("{flag}={value}"));
    }
}

/// Makes a folder where the plain names stand for the legacy variant.
fn link_legacy(folder: &Path) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    std::fs::create_dir(folder)?;
    for (name, legacy) in [
        ("iptables", "iptables-legacy"),
        ("iptables-save", "iptables-legacy-save"),
        ("iptables-restore", "iptables-legacy-restore"),
    ] {
        let found = ["/usr/sbin", "/sbin"].map(|place| Path::new(place).join(legacy));
        let found =
            found.iter().find(|path| path.exists()).with_context(|| format!("there is no {legacy}"))?;
        symlink(found, folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn what_is_told_stays() {
        for (told, expected) in [
            (&[][..], &["--guard=off", "--datapath-hook=clsact"][..]),
            (&["--datapath-hook=auto"], &["--guard=off", "--datapath-hook=clsact"]),
            (&["--datapath-hook=xdp"], &["--guard=off", "--datapath-hook=xdp"]),
        ] {
            let mut flags: Vec<String> =
                ["--guard=off"].iter().chain(told).map(|&flag| flag.into()).collect();
            choose(&mut flags, "--datapath-hook", "clsact");
            assert_eq!(flags, expected);
        }
    }
}
