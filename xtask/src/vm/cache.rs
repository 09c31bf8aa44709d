//! What is kept between runs: packages of kernels, outside of the workspace and of `cargo clean`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder, held by one process at a time.
pub struct Cache {
    folder: PathBuf,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Cache {
    /// Waits for other processes that work on it.
    pub fn open() -> Result<Self> {
        let folder = folder(env::var_os("XDG_CACHE_HOME").map(PathBuf::from), env::home_dir())?;
        make(&folder)?;
        let path = folder.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { folder, _lock: lock })
    }

    /// A folder below it, made if need be. `name` may be any text.
    pub fn folder(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(kind).join(file_name(name));
        make(&folder)?;
        Ok(folder)
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// By the XDG base directory specification, which has relative paths ignored.
fn folder(cache: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    let cache = cache.filter(|path| path.is_absolute());
    let cache = cache.or_else(|| home.map(|home| home.join(".cache")));
    Ok(cache
        .context("there is neither XDG_CACHE_HOME nor HOME to keep kernels in: set one")?
        .join("flannel-ebpf"))
}

/// A text as the name of one file.
fn file_name(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_+~.".contains(letter);
    let name: String = text.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{file_name, folder};

    #[test]
    fn the_folder_follows_the_variables() {
        let path = |text: &str| Some(PathBuf::from(text));
        let ours = |cache, home| folder(cache, home).unwrap().display().to_string();
        assert_eq!(ours(path("/cache"), path("/home/a")), "/cache/flannel-ebpf");
        assert_eq!(ours(None, path("/home/a")), "/home/a/.cache/flannel-ebpf");
        assert_eq!(ours(path("relative"), path("/home/a")), "/home/a/.cache/flannel-ebpf");
        assert!(folder(None, None).is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        assert_eq!(file_name("../a b"), "_.._a_b");
        assert_eq!(file_name("linux-image-6.12+deb13~1"), "linux-image-6.12+deb13~1");
    }
}
