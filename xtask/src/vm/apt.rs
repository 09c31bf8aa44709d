//! A private apt: lists of its own, signatures and checksums checked by apt itself, nothing of the machine changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache::Cache;
use crate::{privilege, step, workspace};

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The URL of an archive, and the suites of it.
    pub archives: Vec<(String, Vec<String>)>,
    pub components: Vec<String>,
    /// What the archives are signed with.
    pub keyring: PathBuf,
}

/// One version of a package, as an archive's list describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    pub package: String,
    pub version: String,
    pub architecture: String,
    pub depends: String,
    pub sha256: String,
}

/// apt with lists of one source.
pub struct Apt {
    /// The file of settings.
    settings: PathBuf,
}

impl Source {
    /// Its identity.
    pub fn name(&self) -> String {
        let archives = self.archives.iter().map(|(url, suites)| {
            let host = url.split_once("://").map_or(&**url, |(_, rest)| rest).trim_end_matches('/');
            format!("{host}-{}", suites.join("-"))
        });
        archives.collect::<Vec<_>>().join("-")
    }

    /// The lines of sources.list. Only lists of packages are fetched, no translations and contents.
    fn lines(&self) -> String {
        let (keyring, components) = (self.keyring.display(), self.components.join(" "));
        let suites =
            self.archives.iter().flat_map(|(url, suites)| suites.iter().map(move |suite| (url, suite)));
        let line = |(url, suite)| {
            format!("deb [arch=amd64 target=Packages signed-by={keyring}] {url} {suite} {components}\n")
        };
        suites.map(line).collect()
    }
}

impl Apt {
    /// Fetches the lists of `source`.
    pub fn update(cache: &Cache, source: &Source) -> Result<Self> {
        if workspace::find("apt-get").is_none() {
            bail!("kernels are fetched with apt-get, which is not here: name package files with --package");
        }
        if !source.keyring.is_file() {
            bail!(
                "there is no keyring {}: install the package that has it, or name another one with --keyring",
                source.keyring.display()
            );
        }
        let folder = cache.folder("apt", &source.name())?;
        for needed in ["lists/partial", "archives/partial", "none"] {
            fs::create_dir_all(folder.join(needed)).context("cannot make folders for apt")?;
        }
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("status", "")?;
        write("sources.list", &source.lines())?;
        write(SETTINGS, &settings(&folder))?;
        let apt = Self { settings: folder.join(SETTINGS) };
        step::run("Fetching lists of packages", apt.command("apt-get", &["update"]))?;
        Ok(apt)
    }

    /// The candidate of `name`, or with `name=version` that version.
    pub fn show(&self, name: &str) -> Result<Stanza> {
        let mut command = self.command("apt-cache", &["show", "--no-all-versions", name]);
        let shown = step::shown(&command);
        let output = command.output().context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        match stanza(&text) {
            Some(stanza) => Ok(stanza),
            None => {
                bail!("no package {name}: {shown} said: {}", String::from_utf8_lossy(&output.stderr).trim())
            }
        }
    }

    /// Downloads packages into `folder`; apt compares them with the signed lists.
    pub fn download(&self, packages: &[Stanza], folder: &Path) -> Result<()> {
        let mut command = self.command("apt-get", &["download"]);
        command.args(packages.iter().map(|stanza| format!("{}={}", stanza.package, stanza.version)));
        command.current_dir(folder);
        step::run("Fetching packages", command)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("--config-file").arg(&self.settings).args(arguments);
        command
    }
}

const SETTINGS: &str = "apt.conf";

/// What has apt work in `folder`. The machine's own settings apply as well, because it may reach archives through a
/// proxy.
fn settings(folder: &Path) -> String {
    let folder = folder.display();
    // apt's own user cannot write below somebody's home.
    let sandbox = if privilege::is_root() { "APT::Sandbox::User \"root\";\n" } else { "" };
    format!(
        r#"Dir::State "{folder}/";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "{folder}/none";
Dir::Etc::Trusted "{folder}/none/trusted.gpg";
Dir::Etc::TrustedParts "{folder}/none";
Dir::Etc::Preferences "{folder}/none/preferences";
Dir::Etc::PreferencesParts "{folder}/none";
APT::Architecture "amd64";
APT::Get::AllowUnauthenticated "false";
// A list that did not come is an error, and so is one without a good signature.
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::Retries "3";
{sandbox}"#
    )
}

/// The first stanza in what `apt-cache show` prints.
fn stanza(text: &str) -> Option<Stanza> {
    let text = text.trim_start().split("\n\n").next()?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let depends = ["Pre-Depends", "Depends"].into_iter().filter_map(field).collect::<Vec<_>>().join(", ");
    Some(Stanza {
        package: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
        depends,
        sha256: field("SHA256")?,
    })
}

impl Stanza {
    /// The name that apt gives the downloaded file.
    pub fn file(&self) -> String {
        format!("{}_{}_{}.deb", self.package, self.version.replace(':', "%3a"), self.architecture)
    }

    /// The packages that are parts of this kernel, as `name` or `name=version`. What an installed system needs
    /// beside it (kmod, firmware, an initramfs) is none.
    pub fn parts(&self) -> Vec<String> {
        self.depends.split(',').filter_map(part).collect()
    }

    /// It has no files, and only stands for the image that it depends on, as no image does.
    pub fn is_metapackage(&self) -> bool {
        self.parts().iter().any(|part| part.starts_with(IMAGE))
    }
}

const IMAGE: &str = "linux-image-";
/// Beginnings of the names of packages that a kernel is divided into.
const PARTS: [&str; 4] = [IMAGE, "linux-modules-", "linux-binary-", "linux-base-"];

fn part(dependency: &str) -> Option<String> {
    let first = dependency.split('|').next()?.trim();
    let mut words = first.split_whitespace();
    let name = words.next()?;
    if !PARTS.iter().any(|part| name.starts_with(part)) {
        return None;
    }
    let version = (words.next() == Some("(=")).then(|| words.next()).flatten();
    Some(match version {
        Some(version) => format!("{name}={}", version.trim_end_matches(')')),
        None => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Source, stanza};

    const SPLIT: &str = "Package: linux-image-7.2.13+deb14-cloud-amd64\n\
        Source: linux-signed-amd64 (7.2.13+1)\n\
        Version: 7.2.13-1\n\
        Architecture: amd64\n\
        Pre-Depends: linux-base (>= 4.17~)\n\
        Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), \
        linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)\n\
        SHA256: 0a1b\n\
        Description: kernel\n  Depends: nothing\n\n\
        Package: other\nVersion: 1\n";

    #[test]
    fn a_kernel_is_followed_to_its_parts_and_no_further() {
        let stanza = stanza(SPLIT).unwrap();
        assert!(!stanza.is_metapackage());
        assert_eq!((&*stanza.version, &*stanza.sha256), ("7.2.13-1", "0a1b"));
        let parts = ["linux-base", "linux-binary", "linux-modules"];
        assert_eq!(stanza.parts(), parts.map(|part| format!("{part}-7.2.13+deb14-cloud-amd64=7.2.13-1")));
    }

    #[test]
    fn a_metapackage_without_versions_is_followed() {
        let text = "Package: linux-image-generic\nVersion: 6.8.0.31.31\nArchitecture: amd64\nSHA256: 1\n\
            Depends: linux-image-6.8.0-31-generic, linux-modules-extra-6.8.0-31-generic, linux-firmware, thermald\n";
        let parts = ["linux-image-6.8.0-31-generic", "linux-modules-extra-6.8.0-31-generic"];
        let stanza = stanza(text).unwrap();
        assert_eq!(stanza.parts(), parts);
        assert!(stanza.is_metapackage());
    }

    #[test]
    fn a_stanza_without_checksum_is_none() {
        assert_eq!(stanza("Package: a\nVersion: 1\nArchitecture: amd64\n"), None);
        assert_eq!(stanza("N: Unable to locate package\n"), None);
    }

    #[test]
    fn an_epoch_is_escaped_in_the_name_of_the_file() {
        let stanza = stanza("Package: a\nVersion: 1:2\nArchitecture: all\nSHA256: 1\n").unwrap();
        assert_eq!(stanza.file(), "a_1%3a2_all.deb");
    }

    #[test]
    fn a_source_has_a_line_for_each_suite() {
        let source = Source {
            archives: vec![
                ("http://a/debian".to_owned(), vec!["x".to_owned(), "y".to_owned()]),
                ("http://a/security".to_owned(), vec!["z".to_owned()]),
            ],
            components: vec!["main".to_owned(), "extra".to_owned()],
            keyring: "/key.gpg".into(),
        };
        let before = "deb [arch=amd64 target=Packages signed-by=/key.gpg] http://a/";
        let lines = ["debian x main extra", "debian y main extra", "security z main extra"];
        assert_eq!(source.lines(), lines.map(|line| format!("{before}{line}\n")).concat());
        assert_eq!(source.name(), "a/debian-x-y-a/security-z");
    }
}
