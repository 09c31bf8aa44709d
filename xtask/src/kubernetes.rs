//! The real programs of Kubernetes for the suites that need them, built once from Debian's source package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::install::{Installer, KUBERNETES, NODES, Package};
use crate::{privilege, step};

/// The suite that needs only the API server.
pub const SUITE: &str = "kubernetes";
/// The suites with nodes, which need everything.
pub const CLUSTER: &str = "cluster";
pub const CONFORMANCE: &str = "conformance";
/// Where the programs are, outside of `target`: they take long to build, and are the same for every checkout.
const PLACE: &str = "/var/cache/flannel-ebpf/kubernetes";
/// Builds them there.
const SCRIPT: &str = include_str!("kubernetes/build.sh");
const API_SERVER: &str = "kube-apiserver";
/// In the order in which they are built.
const PROGRAMS: [&str; 9] = [
    API_SERVER,
    "pause",
    "kubectl",
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "agnhost",
    "e2e.test",
];

/// Whether a suite can run: any that needs none of this can.
pub fn is_there_for(suite: &str) -> bool {
    match suite {
        SUITE => std::env::var_os("FLANNEL_KUBE_APISERVER").is_some() || is_built(API_SERVER),
        CLUSTER | CONFORMANCE => PROGRAMS.into_iter().all(is_built) && NODES.iter().all(Package::is_present),
        _ => true,
    }
}

/// Builds and installs what a suite needs, unless it is there.
pub fn ensure_for(suite: &str) -> Result<()> {
    match suite {
        _ if is_there_for(suite) => Ok(()),
        SUITE => build(&[API_SERVER]),
        _ => ensure(),
    }
}

/// Builds and installs everything that is not there.
pub fn ensure() -> Result<()> {
    Installer::of_this_machine()?.ensure(NODES)?;
    if PROGRAMS.into_iter().all(is_built) { Ok(()) } else { build(&PROGRAMS) }
}

/// Whether the script has written down that it has built this, in the version that it names.
fn is_built(program: &str) -> bool {
    let version = SCRIPT.lines().find_map(|line| line.strip_prefix("version=")).unwrap_or_default();
    let known = fs::read_to_string(Path::new(PLACE).join("programs")).unwrap_or_default();
    let is_known = known.lines().any(|line| line.starts_with(&format!("{program} {version} ")));
    is_known && Path::new(PLACE).join(program).is_file()
}

fn build(programs: &[&str]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("Kubernetes is built here for x86-64 alone: name an API server in FLANNEL_KUBE_APISERVER");
    }
    Installer::of_this_machine()?.ensure(KUBERNETES)?;
    let mut build = Command::new("nice");
    build.args(["sh", "-c", SCRIPT, "sh", PLACE]).args(programs);
    let label = match programs {
        [program] => format!("Building {program}, which takes 10 to 25 minutes"),
        _ => "Building Kubernetes, which takes half an hour to an hour".to_owned(),
    };
    step::run(&label, privilege::as_root(build)?)
}

#[cfg(test)]
mod tests {
    use super::{PROGRAMS, SCRIPT, is_there_for};

    #[test]
    fn the_script_has_a_version_and_a_way_to_build_each_program() {
        assert!(SCRIPT.contains("\nversion=1.20.2\n"));
        for program in PROGRAMS.iter().filter(|program| !program.starts_with("kube")) {
            assert!(SCRIPT.contains(&format!("        {program}) ")), "{program}");
        }
    }

    #[test]
    fn other_suites_need_nothing_of_kubernetes() {
        assert!(is_there_for("network"));
    }
}
