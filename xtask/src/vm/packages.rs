//! The package files of one kernel, with their checksums.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt::{Apt, Source, Stanza};
use super::cache::Cache;
use crate::step;

/// The file that names packages and checksums, beside the packages.
const SUMS: &str = "SHA256SUMS";

/// Package files that together are one kernel.
pub struct Packages {
    pub files: Vec<PathBuf>,
    /// As `sha256sum` writes it; identifies these files.
    pub sums: String,
    /// Where what is made of them is kept.
    pub folder: PathBuf,
}

impl Packages {
    /// The package `name` of `source` and its parts: those in the cache, or, if there are none or `is_refresh`, those
    /// that the archive has now.
    pub fn of_archive(cache: &Cache, source: &Source, name: &str, is_refresh: bool) -> Result<Self> {
        let folder = cache.folder("kernels", &format!("{}-{name}", source.name()))?;
        if is_refresh || !folder.join(SUMS).exists() {
            fetch(&Apt::update(cache, source)?, name, &folder)?;
        }
        Self::checked(&folder)
    }

    /// Files that somebody has.
    pub fn of_files(cache: &Cache, files: &[PathBuf]) -> Result<Self> {
        let mut sum = Command::new("sha256sum");
        sum.arg("--").args(files);
        let sums = output(sum)?;
        let words: Vec<&str> = sums.lines().filter_map(|line| line.get(..16)).collect();
        let folder = cache.folder("kernels", &format!("files-{}", words.join("-")))?;
        Ok(Self { files: files.to_vec(), sums, folder })
    }

    /// Compares the files in the cache with their checksums.
    fn checked(folder: &Path) -> Result<Self> {
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--strict", "--quiet", SUMS]).current_dir(folder);
        output(check).with_context(|| {
            format!("the packages in {} are not those that were fetched: use --refresh", folder.display())
        })?;
        let sums = fs::read_to_string(folder.join(SUMS)).context("cannot read checksums")?;
        let files = sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| folder.join(name));
        Ok(Self { files: files.collect(), sums, folder: folder.to_owned() })
    }
}

/// Downloads the package and its parts, and writes the checksums last: what has them is complete.
fn fetch(apt: &Apt, name: &str, folder: &Path) -> Result<()> {
    let parts = closure(name, |name| apt.show(name))?;
    apt.download(&parts, folder)?;
    let sums: String = parts.iter().map(|part| format!("{}  {}\n", part.sha256, part.file())).collect();
    let (path, new) = (folder.join(SUMS), folder.join("SHA256SUMS.new"));
    fs::write(&new, sums).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))?;
    remove_others(folder, &parts)
}

/// Removes packages of earlier versions.
fn remove_others(folder: &Path, parts: &[Stanza]) -> Result<()> {
    for entry in fs::read_dir(folder).context("cannot list packages")? {
        let entry = entry.context("cannot list packages")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".deb") && !parts.iter().any(|part| part.file() == name) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {name}"))?;
        }
    }
    Ok(())
}

/// The package and all its parts, and theirs, but for those without files.
fn closure(name: &str, show: impl Fn(&str) -> Result<Stanza>) -> Result<Vec<Stanza>> {
    let mut found: Vec<Stanza> = Vec::new();
    let mut open = VecDeque::from([name.to_owned()]);
    while let Some(name) = open.pop_front() {
        let stanza = show(&name)?;
        if !found.iter().any(|known| known.package == stanza.package) {
            open.extend(stanza.parts());
            found.push(stanza);
        }
    }
    found.retain(|stanza| !stanza.is_metapackage());
    Ok(found)
}

/// What a short command prints.
pub fn output(mut command: Command) -> Result<String> {
    let shown = step::shown(&command);
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        bail!("{shown} failed ({}): {}", output.status, format!("{stdout}{stderr}").trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no text"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::{Packages, SUMS, Stanza, closure, output};

    fn stanza(name: &str, depends: &str) -> Stanza {
        let [package, depends] = [name, depends].map(str::to_owned);
        Stanza { package, version: "1".into(), architecture: "amd64".into(), depends, sha256: "0".into() }
    }

    #[test]
    fn each_part_is_taken_once_also_in_circles() {
        let show = |name: &str| {
            Ok(match name {
                "linux-image-cloud" => stanza(name, "linux-image-1 (= 1), linux-base-1"),
                "linux-image-1=1" => stanza("linux-image-1", "linux-base-1, kmod"),
                "linux-base-1" => stanza(name, "linux-modules-1"),
                "linux-modules-1" => stanza(name, "linux-base-1"),
                name => stanza(name, ""),
            })
        };
        let found = closure("linux-image-cloud", show).unwrap();
        let names: Vec<&str> = found.iter().map(|stanza| &*stanza.package).collect();
        assert_eq!(names, ["linux-image-1", "linux-base-1", "linux-modules-1"]);
    }

    #[test]
    fn a_package_that_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.deb"), "one").unwrap();
        let mut sum = Command::new("sha256sum");
        sum.arg("a.deb").current_dir(folder.path());
        fs::write(folder.path().join(SUMS), output(sum).unwrap()).unwrap();
        let packages = Packages::checked(folder.path()).unwrap();
        assert_eq!(packages.files, [folder.path().join("a.deb")]);
        fs::write(folder.path().join("a.deb"), "two").unwrap();
        let error = format!("{:#}", Packages::checked(folder.path()).err().unwrap());
        assert!(error.contains("--refresh") && error.contains("a.deb"), "{error}");
    }
}
