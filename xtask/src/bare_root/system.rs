//! Systems, and where their packages come from.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::vm::{Apt, Cache, Source, output};

const DEBIAN_ARCHIVE: &str = "http://deb.debian.org/debian";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Of the keys of Ubuntu's archive: where Ubuntu has them, and Debian's package.
const UBUNTU_KEYRING: &str = "usr/share/keyrings/ubuntu-archive-keyring.gpg";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    #[value(name = "debian-12")]
    Debian12,
    #[value(name = "debian-13")]
    Debian13,
    #[value(name = "ubuntu-24.04")]
    Ubuntu2404,
}

impl System {
    /// As mmdebstrap is told.
    pub const fn suite(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
            Self::Ubuntu2404 => "noble",
        }
    }

    /// What `setup` says there of the compiler of the kernel programs.
    pub const fn compiler(self) -> &'static str {
        match self {
            Self::Debian12 | Self::Debian13 => "the distribution's /usr/bin/rustc",
            // It packages compilers, but no LLVM that reads what they write.
            Self::Ubuntu2404 => "rustup's stable",
        }
    }

    /// It packages an LLVM with which the linker can be built.
    pub const fn has_llvm(self) -> bool {
        matches!(self, Self::Debian12 | Self::Debian13)
    }

    /// Where its packages are.
    pub const fn archive(self) -> &'static str {
        match self {
            Self::Debian12 | Self::Debian13 => DEBIAN_ARCHIVE,
            Self::Ubuntu2404 => "http://archive.ubuntu.com/ubuntu",
        }
    }

    /// Its sources.list.
    pub fn sources(self) -> Vec<String> {
        let suite = self.suite();
        let archive = self.archive();
        let (security, components) = match self {
            Self::Debian12 | Self::Debian13 => ("http://deb.debian.org/debian-security", "main"),
            Self::Ubuntu2404 => (archive, "main universe"),
        };
        let line = |archive: &str, suite: &str| format!("deb {archive} {suite} {components}");
        vec![
            line(archive, suite),
            line(archive, &format!("{suite}-updates")),
            line(security, &format!("{suite}-security")),
        ]
    }

    /// The file of keys that its archive is signed with. Those of Ubuntu are taken from a package of Debian 13, which
    /// Debian has signed.
    pub fn keyring(self) -> Result<PathBuf> {
        let here = PathBuf::from("/").join(UBUNTU_KEYRING);
        match self {
            Self::Debian12 | Self::Debian13 => Ok(DEBIAN_KEYRING.into()),
            Self::Ubuntu2404 if here.is_file() => Ok(here),
            Self::Ubuntu2404 => fetch_ubuntu_keyring().context("cannot fetch the keys of Ubuntu's archive"),
        }
    }
}

fn fetch_ubuntu_keyring() -> Result<PathBuf> {
    let source = Source {
        archives: vec![(DEBIAN_ARCHIVE.to_owned(), vec!["trixie".to_owned()])],
        components: vec!["main".to_owned()],
        keyring: DEBIAN_KEYRING.into(),
    };
    let cache = Cache::open()?;
    let apt = Apt::update(&cache, &source)?;
    let package = apt.show("ubuntu-keyring")?;
    let folder = cache.folder("keyrings", "ubuntu")?;
    let file = folder.join(package.file());
    apt.download(&[package], &folder)?;
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(&file).arg(&folder);
    output(extract)?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(folder.join(UBUNTU_KEYRING))
}

impl Display for System {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
            Self::Ubuntu2404 => "ubuntu-24.04",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::System;

    #[test]
    fn a_system_is_called_as_on_the_command_line() {
        for system in System::value_variants() {
            assert_eq!(system.to_possible_value().unwrap().get_name(), system.to_string());
        }
    }

    #[test]
    fn security_updates_come_from_where_the_distribution_has_them() {
        let security = |system: System| system.sources().remove(2);
        assert_eq!(
            security(System::Debian13),
            "deb http://deb.debian.org/debian-security trixie-security main"
        );
        assert_eq!(
            security(System::Ubuntu2404),
            "deb http://archive.ubuntu.com/ubuntu noble-security main universe"
        );
    }
}
