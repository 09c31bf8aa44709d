//! moto, which plays Amazon's services and checks signatures and policies, for the suite `moto`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{privilege, step};

/// The suite that needs it.
pub const SUITE: &str = "moto";
/// Where it is, outside of `target`: it is the same for every checkout.
const PLACE: &str = "/var/cache/flannel-ebpf/moto-5.2.5";
const PACKAGE: &str = "moto[server]==5.2.5";
/// Installs it. What was not finished is removed.
const SCRIPT: &str = r#"set -e
rm -rf "$1"
mkdir -p "$(dirname "$1")"
trap 'rm -rf "$1"' EXIT
python3 -m venv "$1"
"$1/bin/pip" --disable-pip-version-check install --quiet "$2"
trap - EXIT
touch "$1/complete"
"#;

/// Installs it unless it is there.
pub fn ensure() -> Result<()> {
    if Path::new(PLACE).join("complete").is_file() {
        return Ok(());
    }
    let mut install = Command::new("sh");
    install.args(["-c", SCRIPT, "sh", PLACE, PACKAGE]);
    step::run("Installing moto, which takes a few minutes", privilege::as_root(install)?)
}
