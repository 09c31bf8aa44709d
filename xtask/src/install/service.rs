//! Keeps packages from starting services: the demo and the tests start such programs themselves, and one that nobody
//! asked for would listen on the machine from now on.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{privilege, step, workspace};

/// The packages that bring units, themselves or by what they depend on, and the units.
const UNITS: [(&str, &[&str]); 4] = [
    ("etcd-server", &["etcd.service"]),
    ("prometheus", &["prometheus.service"]),
    ("docker.io", &["docker.service", "docker.socket", "containerd.service"]),
    (
        "podman",
        &[
            "podman.service",
            "podman.socket",
            "podman-restart.service",
            "podman-auto-update.service",
            "podman-auto-update.timer",
        ],
    ),
];
/// A condition that never holds: a start then does nothing, and is no failure. Masking the unit would do
/// so too, but then its package forgets that somebody disabled it, and starts it when it is upgraded.
const NEVER: &str = "[Unit]\nConditionPathExists=!/\n";

/// What is done around one installation.
pub struct HeldServices {
    /// The units that it brings.
    units: Vec<&'static str>,
    /// systemd runs, and has the drop-ins.
    dropped_in: bool,
}

impl HeldServices {
    /// To be called before `packages` are installed. A service that is there already is somebody's: it is
    /// left alone, whether it runs or not.
    pub fn before(packages: &[&str]) -> Result<Self> {
        let brought = UNITS.iter().filter(|(package, _)| packages.contains(package));
        let units: Vec<&str> =
            brought.flat_map(|(_, units)| *units).copied().filter(|unit| !is_there(unit)).collect();
        let dropped_in = Path::new("/run/systemd/system").exists();
        if dropped_in {
            for unit in &units {
                run("install", &["-D", "--mode=644", "/dev/stdin", &drop_in(unit)], NEVER)?;
            }
        }
        Ok(Self { units, dropped_in })
    }

    /// Options for apt-get: the init scripts are left out.
    pub fn options(&self) -> impl Iterator<Item = String> {
        let scripts = self.units.iter().filter_map(|unit| init_script(unit));
        scripts.map(|script| format!("--option=DPkg::Options::=--path-exclude={script}"))
    }

    /// To be called after the installation, failed or not: the units stay, but nothing starts them at boot.
    pub fn release(self) -> Result<()> {
        for unit in self.units {
            if self.dropped_in {
                run("rm", &["--force", &drop_in(unit)], "")?;
            }
            // Also where systemd does not run now: it may at the next boot.
            if unit_exists(unit) && workspace::find("systemctl").is_some() {
                run("systemctl", &["disable", unit], "")?;
            }
        }
        Ok(())
    }
}

/// What starts a service where systemd does not run.
fn init_script(unit: &str) -> Option<String> {
    unit.strip_suffix(".service").map(|service| format!("/etc/init.d/{service}"))
}

/// Settings that last until the next boot at most.
fn drop_in(unit: &str) -> String {
    format!("/run/systemd/system/{unit}.d/not-now.conf")
}

fn is_there(unit: &str) -> bool {
    init_script(unit).is_some_and(|script| Path::new(&script).exists()) || unit_exists(unit)
}

fn unit_exists(unit: &str) -> bool {
    ["/etc", "/usr/local/lib", "/usr/lib", "/lib"]
        .iter()
        .any(|folder| Path::new(folder).join("systemd/system").join(unit).exists())
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
