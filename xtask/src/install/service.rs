//! Keeps packages from starting services: the demo and the tests start such programs themselves, and one that nobody
//! asked for would listen on the machine from now on.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{privilege, step, workspace};

/// The packages that bring a service, and the service's name.
const SERVICES: [(&str, &str); 2] = [("etcd-server", "etcd"), ("prometheus", "prometheus")];
/// A condition that never holds: a start then does nothing, and is no failure. Masking the unit would do
/// so too, but then its package forgets that somebody disabled it, and starts it when it is upgraded.
const NEVER: &str = "[Unit]\nConditionPathExists=!/\n";

/// What is done around one installation.
pub struct HeldServices {
    /// The services that it brings.
    services: Vec<&'static str>,
    /// systemd runs, and has the drop-ins.
    dropped_in: bool,
}

impl HeldServices {
    /// To be called before `packages` are installed. A service that is there already is somebody's: it is
    /// left alone, whether it runs or not.
    pub fn before(packages: &[&str]) -> Result<Self> {
        let brought = SERVICES.iter().filter(|(package, _)| packages.contains(package));
        let services: Vec<&str> =
            brought.map(|(_, service)| *service).filter(|service| !is_there(service)).collect();
        let dropped_in = Path::new("/run/systemd/system").exists();
        if dropped_in {
            for service in &services {
                run("install", &["-D", "--mode=644", "/dev/stdin", &drop_in(service)], NEVER)?;
            }
        }
        Ok(Self { services, dropped_in })
    }

    /// Options for apt-get: the init scripts are left out.
    pub fn options(&self) -> impl Iterator<Item = String> {
        self.services
            .iter()
            .map(|service| format!("--option=DPkg::Options::=--path-exclude={}", init_script(service)))
    }

    /// To be called after the installation, failed or not: the units stay, but nothing starts them at boot.
    pub fn release(self) -> Result<()> {
        for service in self.services {
            if self.dropped_in {
                run("rm", &["--force", &drop_in(service)], "")?;
            }
            // Also where systemd does not run now: it may at the next boot.
            if unit_exists(service) && workspace::find("systemctl").is_some() {
                run("systemctl", &["disable", &unit(service)], "")?;
            }
        }
        Ok(())
    }
}

fn unit(service: &str) -> String {
    format!("{service}.service")
}

/// Started by the package where systemd does not run.
fn init_script(service: &str) -> String {
    format!("/etc/init.d/{service}")
}

/// Settings that last until the next boot at most.
fn drop_in(service: &str) -> String {
    format!("/run/systemd/system/{service}.service.d/not-now.conf")
}

fn is_there(service: &str) -> bool {
    Path::new(&init_script(service)).exists() || unit_exists(service)
}

fn unit_exists(service: &str) -> bool {
    ["/etc", "/usr/local/lib", "/usr/lib", "/lib"]
        .iter()
        .any(|folder| Path::new(folder).join("systemd/system").join(unit(service)).exists())
}

/// Runs a short command as root, with `input`.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments);
    let mut command = privilege::as_root(command)?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
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
