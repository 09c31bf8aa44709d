//! Keeps etcd's package from starting a service: the demo and the tests start etcd themselves, and a store
//! that nobody asked for would listen on the machine from now on.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{privilege, step, workspace};

const PACKAGE: &str = "etcd-server";
const UNIT: &str = "etcd.service";
/// Started by the package where systemd does not run.
const INIT_SCRIPT: &str = "/etc/init.d/etcd";
/// Settings that last until the next boot at most.
const DROP_IN: &str = "/run/systemd/system/etcd.service.d/not-now.conf";
/// A condition that never holds: a start then does nothing, and is no failure. Masking the unit would do
/// so too, but then its package forgets that somebody disabled it, and starts it when it is upgraded.
const NEVER: &str = "[Unit]\nConditionPathExists=!/\n";

/// What is done around one installation.
pub struct Held {
    /// The package that brings the service is among those installed.
    concerned: bool,
    /// systemd runs, and has the drop-in.
    dropped_in: bool,
}

impl Held {
    /// To be called before `packages` are installed. A service that is there already is somebody's: it is
    /// left alone, whether it runs or not.
    pub fn before(packages: &[&str]) -> Result<Self> {
        let concerned = packages.contains(&PACKAGE) && !Path::new(INIT_SCRIPT).exists() && !unit_exists();
        let dropped_in = concerned && Path::new("/run/systemd/system").exists();
        if dropped_in {
            run("install", &["-D", "--mode=644", "/dev/stdin", DROP_IN], NEVER)?;
        }
        Ok(Self { concerned, dropped_in })
    }

    /// Options for apt-get: the init script is left out.
    pub fn options(&self) -> Option<String> {
        self.concerned.then(|| format!("--option=DPkg::Options::=--path-exclude={INIT_SCRIPT}"))
    }

    /// To be called after the installation, failed or not: the unit stays, but nothing starts it at boot.
    pub fn release(self) -> Result<()> {
        if self.dropped_in {
            run("rm", &["--force", DROP_IN], "")?;
        }
        // Also where systemd does not run now: it may at the next boot.
        if self.concerned && unit_exists() && workspace::find("systemctl").is_some() {
            run("systemctl", &["disable", UNIT], "")?;
        }
        Ok(())
    }
}

fn unit_exists() -> bool {
    ["/etc", "/usr/local/lib", "/usr/lib", "/lib"]
        .iter()
        .any(|folder| Path::new(folder).join("systemd/system").join(UNIT).exists())
}

/// Runs a short command as root, with `input`.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command: Command = privilege::command(program)?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let shown = step::shown(&command);
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("cannot write to {shown}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
