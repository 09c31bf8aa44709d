//! Who is let in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Etcd;
use super::PREFIX;

/// The daemons' user, and the name of its role.
pub const USER: &str = "flannel";
/// That user's password, to begin with.
pub const PASSWORD: &str = "first-canary";
/// The user who may do everything, and the password.
const ROOT: &str = "root:root";

/// Access control that is switched on.
#[derive(Debug)]
pub(super) struct Access {
    directory: PathBuf,
}

impl Access {
    /// Lets nobody in but root and a user that may read and write below the network's prefix.
    pub(super) fn set_up(etcd: &Etcd) -> Result<Self> {
        let ctl = |command: &str| etcd.ctl(&command.split(' ').collect::<Vec<_>>());
        ctl(&format!("user add {ROOT}"))?;
        ctl("user grant-role root root")?;
        ctl(&format!("user add {USER}:{PASSWORD}"))?;
        ctl(&format!("role add {USER}"))?;
        ctl(&format!("role grant-permission {USER} readwrite {PREFIX}/ --prefix=true"))?;
        ctl(&format!("user grant-role {USER} {USER}"))?;
        ctl("auth enable")?;
        fs::write(password_file(&etcd.directory), format!("{PASSWORD}\n"))?;
        Ok(Self { directory: etcd.directory.clone() })
    }

    /// Flags of `flanneld`.
    pub(super) fn daemon_flags(&self) -> Vec<String> {
        let file = password_file(&self.directory);
        vec![format!("--etcd-username={USER}"), format!("--etcd-password-file={}", file.display())]
    }

    /// Flags of `etcdctl`.
    pub(super) const fn ctl_flags() -> [&'static str; 2] {
        ["--user", ROOT]
    }
}

pub(super) fn password_file(directory: &Path) -> PathBuf {
    directory.join("password")
}
