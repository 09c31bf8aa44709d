//! The real `kube-apiserver` for the suite `kubernetes`, built once from Debian's source package.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::install::{Installer, KUBERNETES};
use crate::{privilege, step};

/// The suite that needs it.
pub const SUITE: &str = "kubernetes";
/// Where it is, outside of `target`: it takes long to build, and is the same for every checkout.
const PROGRAM: &str = "/var/cache/flannel-ebpf/kubernetes/kube-apiserver";
/// Builds it beside its place.
const SCRIPT: &str = include_str!("kubernetes/build.sh");

/// Whether the suite can run.
pub fn is_there() -> bool {
    std::env::var_os("FLANNEL_KUBE_APISERVER").is_some() || Path::new(PROGRAM).is_file()
}

/// Builds the program unless it is there.
pub fn ensure() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    if !cfg!(target_arch = "x86_64") {
        bail!("kube-apiserver is built here for x86-64 alone: name one in FLANNEL_KUBE_APISERVER");
    }
    Installer::of_this_machine()?.ensure(KUBERNETES)?;
    let mut build = Command::new("sh");
    build.args(["-c", SCRIPT, "sh", PROGRAM]);
    step::run("Building kube-apiserver, which takes 10 to 25 minutes", privilege::as_root(build)?)
}
