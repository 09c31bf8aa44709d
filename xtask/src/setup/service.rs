//! Keeps etcd's package from starting a service: the demo and the tests start etcd themselves, and a store
//! that nobody asked for would listen on the machine from now on.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::{privilege, workspace};

const PACKAGE: &str = "etcd-server";
const UNIT: &str = "etcd.service";
const INIT_SCRIPT: &str = "/etc/init.d/etcd";

/// What is done around one installation.
pub struct Held {
    /// The package that brings the service is among those installed.
    concerned: bool,
    /// systemd runs, and the unit is masked until the installation is over.
    masked: bool,
}

impl Held {
    /// To be called before `packages` are installed. A unit that is there already is somebody's: it is left
    /// alone, whether it runs or not.
    pub fn before(packages: &[&str]) -> Result<Self> {
        let concerned = packages.contains(&PACKAGE) && !Path::new(INIT_SCRIPT).exists() && !unit_exists();
        let masked = concerned && Path::new("/run/systemd/system").exists();
        if masked {
            systemctl(&["mask", "--runtime"])?;
        }
        Ok(Self { concerned, masked })
    }

    /// Options for apt-get: without systemd a package starts its init script, so that is left out.
    pub fn options(&self) -> Option<String> {
        self.concerned.then(|| format!("--option=DPkg::Options::=--path-exclude={INIT_SCRIPT}"))
    }

    /// To be called after the installation, failed or not: the unit stays, but nothing starts it at boot.
    pub fn release(self) -> Result<()> {
        if self.masked {
            systemctl(&["unmask", "--runtime"])?;
        }
        // Also where systemd does not run now: it may at the next boot.
        if self.concerned && unit_exists() && workspace::find("systemctl").is_some() {
            systemctl(&["disable"])?;
        }
        Ok(())
    }
}

fn unit_exists() -> bool {
    ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"]
        .iter()
        .any(|folder| Path::new(folder).join("systemd/system").join(UNIT).exists())
}

fn systemctl(verb: &[&str]) -> Result<()> {
    let mut command = privilege::command("systemctl")?;
    let output = command.args(verb).arg(UNIT).stdin(Stdio::null()).output();
    let output = output.context("cannot run systemctl")?;
    if !output.status.success() {
        bail!(
            "systemctl {} {UNIT} failed: {}",
            verb.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
