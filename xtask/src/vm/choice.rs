//! Which kernels are asked for, and where their packages are.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::apt::Source;
use super::cache::Cache;
use super::kernel::Kernel;
use super::packages::Packages;

/// Debian's cloud kernels, by the suite whose kernel each is.
const DEBIAN: &[(&str, &str)] =
    &[("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), (NEWEST, SID)];
const NEWEST: &str = "newest";
/// The suite without one of security updates: they come into it.
const SID: &str = "sid";
/// The package that depends on the image.
const CLOUD: &str = "linux-image-cloud-amd64";

/// Which kernels.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Choice {
    /// A kernel: 5.10, 6.1, 6.12 or newest, Debian's cloud kernels; with --mirror, the name of a package. Several are
    /// booted one after the other; without any, these four
    #[arg(long = "kernel", value_name = "VERSION")]
    pub kernels: Vec<String>,
    /// A package file of one further kernel; to be repeated for each file that it is divided into: image, modules
    #[arg(long = "package", value_name = "FILE")]
    pub packages: Vec<PathBuf>,
    #[command(flatten)]
    pub mirror: Mirror,
    /// Asks the archive for newer packages than those fetched before
    #[arg(long)]
    pub refresh: bool,
}

/// Where --kernel names a package.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Mirror {
    /// The archive with packages that --kernel names, for example linux-image-generic of an archive of Ubuntu
    #[arg(long, value_name = "URL", requires_all = ["suites", "keyring", "kernels"])]
    pub mirror: Option<String>,
    /// A suite of --mirror: jammy, jammy-updates
    #[arg(long = "suite", value_name = "NAME", requires = "mirror")]
    pub suites: Vec<String>,
    /// A component of --mirror
    #[arg(long = "component", value_name = "NAME", default_value = "main")]
    pub components: Vec<String>,
    /// The file of keys that --mirror is signed with
    #[arg(long, value_name = "FILE", requires = "mirror")]
    pub keyring: Option<PathBuf>,
}

/// One kernel that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A package of an archive.
    Archive {
        name: String,
        source: Source,
        package: String,
    },
    Files(Vec<PathBuf>),
}

impl Choice {
    /// The kernels, in the order asked for.
    pub fn wanted(&self) -> Result<Vec<Wanted>> {
        let mut names: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
        if names.is_empty() && self.packages.is_empty() {
            names = DEBIAN.iter().map(|(name, _)| *name).collect();
        }
        let mut wanted: Vec<Wanted> =
            names.into_iter().map(|name| self.named(name)).collect::<Result<_>>()?;
        if !self.packages.is_empty() {
            wanted.push(Wanted::Files(self.packages.clone()));
        }
        Ok(wanted)
    }

    /// The kernel that is `wanted`, fetched and unpacked if need be.
    pub fn prepare(&self, wanted: &Wanted) -> Result<Kernel> {
        wanted.prepare(&Cache::open()?, self.refresh)
    }

    fn named(&self, name: &str) -> Result<Wanted> {
        if let Some(source) = self.mirror.source() {
            return Ok(Wanted::Archive { name: name.to_owned(), source, package: name.to_owned() });
        }
        let Some((_, suite)) = DEBIAN.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = DEBIAN.iter().map(|(name, _)| *name).collect();
            bail!(
                "Debian has no cloud kernel {name}, but {}: name another's package files with --package, or its archive with --mirror",
                known.join(", ")
            );
        };
        Ok(Wanted::Archive { name: name.to_owned(), source: debian(suite), package: CLOUD.to_owned() })
    }
}

impl Mirror {
    fn source(&self) -> Option<Source> {
        let archives = vec![(self.mirror.clone()?, self.suites.clone())];
        Some(Source { archives, components: self.components.clone(), keyring: self.keyring.clone()? })
    }
}

fn debian(suite: &str) -> Source {
    let mut archives = vec![("http://deb.debian.org/debian".to_owned(), vec![suite.to_owned()])];
    if suite != SID {
        archives
            .push(("http://deb.debian.org/debian-security".to_owned(), vec![format!("{suite}-security")]));
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg".into();
    Source { archives, components: vec!["main".to_owned()], keyring }
}

impl Wanted {
    pub fn name(&self) -> String {
        match self {
            Self::Archive { name, .. } => name.clone(),
            Self::Files(files) => {
                let names = files.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy());
                names.collect::<Vec<_>>().join(" + ")
            }
        }
    }

    /// The kernel, fetched and unpacked if need be.
    fn prepare(&self, cache: &Cache, is_refresh: bool) -> Result<Kernel> {
        let packages = match self {
            Self::Archive { source, package, .. } => {
                Packages::of_archive(cache, source, package, is_refresh)?
            }
            Self::Files(files) => Packages::of_files(cache, files)?,
        };
        Kernel::unpack(&self.name(), &packages)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Choice, Wanted};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn wanted(words: &[&str]) -> Result<Vec<String>, String> {
        let words = ["vm"].iter().chain(words);
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let wanted = line.choice.wanted().map_err(|error| error.to_string())?;
        Ok(wanted
            .iter()
            .map(|wanted| match wanted {
                Wanted::Archive { source, package, .. } => format!("{package} {}", source.name()),
                Wanted::Files(files) => format!("{files:?}"),
            })
            .collect())
    }

    #[test]
    fn the_default_is_all_of_debian() {
        let of = |suite| format!("linux-image-cloud-amd64 deb.debian.org/debian-{suite}");
        let secured = |suite| format!("{}-deb.debian.org/debian-security-{suite}-security", of(suite));
        assert_eq!(
            wanted(&[]).unwrap(),
            [secured("bullseye"), secured("bookworm"), secured("trixie"), of("sid")]
        );
    }

    #[test]
    fn kernels_stand_in_the_order_asked_for_and_files_are_one_more() {
        let all = wanted(&["--kernel=newest", "--kernel=6.1", "--package=a.deb", "--package=b.deb"]).unwrap();
        assert!(all[0].ends_with("sid") && all[1].contains("bookworm"), "{all:?}");
        assert_eq!(all[2], r#"["a.deb", "b.deb"]"#);
        assert_eq!(wanted(&["--package=a.deb"]).unwrap().len(), 1);
    }

    #[test]
    fn another_archive_has_packages_by_name() {
        let mirror =
            ["--mirror=http://u/ubuntu", "--suite=jammy", "--suite=jammy-updates", "--keyring=/k.gpg"];
        let all = wanted(&[&mirror[..], &["--kernel=linux-image-generic"]].concat()).unwrap();
        assert_eq!(all, ["linux-image-generic u/ubuntu-jammy-jammy-updates"]);
        assert!(wanted(&mirror).unwrap_err().contains("--kernel"));
        assert!(wanted(&["--mirror=http://u", "--kernel=a"]).unwrap_err().contains("--suite"));
    }

    #[test]
    fn an_unknown_version_is_refused_with_what_there_is() {
        let error = wanted(&["--kernel=5.15"]).unwrap_err();
        assert!(error.contains("5.10, 6.1, 6.12, newest") && error.contains("--package"), "{error}");
    }
}
