//! Images of containers, packed from files of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A file system to be packed, below a directory.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// An empty one at `directory`, which is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(directory: PathBuf) -> Result<Self> {
        for folder in ["tmp", "etc", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"] {
            fs::create_dir_all(directory.join("root").join(folder))?;
        }
        for folder in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{folder}"), directory.join("root").join(folder))?;
        }
        Ok(Self { root: directory })
    }

    /// Adds a file as `path`.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn add(&self, file: &Path, path: &str) -> Result<()> {
        let place = self.root.join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("no folder")?)?;
        fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// Adds a program as `path` with the libraries it needs.
    ///
    /// # Errors
    /// It cannot be copied, or needs a library that is not there.
    pub fn add_program(&self, program: &Path, path: &str) -> Result<()> {
        self.add(program, path)?;
        for library in libraries(program)? {
            if !self.root.join("root").join(library.trim_start_matches('/')).exists() {
                self.add(Path::new(&library), &library)?;
            }
        }
        Ok(())
    }

    /// Adds one that was built here, without what only a debugger reads: most of it.
    ///
    /// # Errors
    /// As [`Image::add_program`].
    pub fn add_built(&self, program: &Path, path: &str) -> Result<()> {
        self.add_program(program, path)?;
        let place = self.root.join("root").join(path.trim_start_matches('/'));
        let status = Command::new("strip").arg("--strip-debug").arg(&place).status()?;
        ensure!(status.success(), "strip of {path} failed ({status})");
        Ok(())
    }

    /// Adds programs of this machine under their names.
    ///
    /// # Errors
    /// One is missing.
    pub fn add_commands(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output()?;
            ensure!(found.status.success(), "this machine has no program {name}");
            let path = String::from_utf8(found.stdout)?;
            self.add_program(Path::new(path.trim()), &format!("/usr/bin/{name}"))?;
        }
        Ok(())
    }

    /// Adds a folder of this machine under its own path, with the files in it.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn add_folder(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
            let path = entry?.path();
            self.add(&path, path.to_str().context("a name that is no text")?)?;
        }
        Ok(())
    }

    /// Packs it under these names, as an archive that `ctr images import` takes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn pack(&self, names: &[&str], entrypoint: &[&str], command: &[&str]) -> Result<PathBuf> {
        let layer = self.root.join("layer.tar");
        tar(&self.root.join("root"), &layer, ".")?;
        let hash = Sha256::digest(fs::read(&layer)?);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": entrypoint,
                "Cmd": command,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"] }]);
        fs::write(self.root.join("config.json"), config.to_string())?;
        fs::write(self.root.join("manifest.json"), manifest.to_string())?;
        let archive = self.root.with_extension("tar");
        tar(&self.root, &archive, "manifest.json config.json layer.tar")?;
        fs::remove_dir_all(&self.root)?;
        Ok(archive)
    }
}

fn tar(from: &Path, to: &Path, what: &str) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(from).args(["--owner=0", "--group=0", "-cf"]).arg(to);
    let status = command.args(what.split_whitespace()).status()?;
    ensure!(status.success(), "tar of {} failed ({status})", from.display());
    Ok(())
}

/// What the loader needs for a program: nothing for a static one.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    if text.contains("not found") {
        bail!("{} needs a library that is not there:\n{text}", program.display());
    }
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}
