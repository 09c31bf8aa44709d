//! Cgroups of a run, which go once their processes have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How long processes that were killed may take to be gone.
const END: Duration = Duration::from_secs(5);

/// Where the hierarchies of cgroups are mounted: one of version 2, or several of version 1.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let cgroups = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    });
    cgroups.collect()
}

/// Removes the cgroup of that name, which may be gone, in each.
pub(super) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + END;
    for path in hierarchies().iter().map(|hierarchy| hierarchy.join(name)).filter(|path| path.exists()) {
        while let Err(error) = remove_tree(&path) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Only folders can be removed: the files in them are the kernel's.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::hierarchies;
    use crate::claim::{Claim, Thing, name};

    #[test]
    fn cgroups_go_with_those_below_them() {
        let name = name("cgroup-test");
        let places: Vec<_> = hierarchies().iter().map(|hierarchy| hierarchy.join(&name)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|place| std::fs::create_dir_all(place.join("containers/one")).unwrap());
        drop(Claim::new(Thing::Cgroup(name)));
        assert!(places.iter().all(|place| !place.exists()));
    }
}
