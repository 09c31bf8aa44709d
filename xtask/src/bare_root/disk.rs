//! A disk that is there only for this process and its children, and goes with them, however they end: it is mounted in a
//! mount namespace of its own, and the file that it lies in has no name any more.

use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use crate::vm::output;
use crate::{privilege, workspace};

/// How large it is. Of the file, only what was written takes space.
const BYTES: u64 = 16 << 30;
/// How much of it a system takes in the end.
const NEEDED: u64 = 8 << 30;

/// Where it is mounted: an empty folder to everybody else. apt's own user comes there, as it does not to somebody's home.
const FOLDER: &str = "/run/flannel-bare-root";

/// A mounted disk.
pub struct Disk(());

impl Disk {
    /// Where it is, for the thread that was given it and what that starts.
    #[expect(clippy::unused_self, reason = "only who has a disk has a folder on it")]
    pub fn folder(&self) -> &'static Path {
        Path::new(FOLDER)
    }
}

/// Does `work` where there is a disk.
pub fn with<T: Send>(work: impl FnOnce(&Disk) -> T + Send) -> Result<T> {
    let enter = || -> Result<T> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .context("cannot keep mounts to this process")?;
        Ok(work(&make()?))
    };
    thread::scope(|scope| scope.spawn(enter).join()).map_err(|_| anyhow!("the work on the disk panicked"))?
}

fn make() -> Result<Disk> {
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    let target = workspace::root().join("target");
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    check_space(&target)?;
    let file = tempfile::Builder::new().prefix(&name()).suffix(".img").tempfile_in(target);
    let file = file.context("cannot make the file of a disk")?;
    file.as_file().set_len(BYTES).context("cannot make the file of a disk")?;
    let mut format = Command::new("mkfs.ext4");
    format.args(["-q", "-F", "-m", "0", "-O", "^has_journal"]).arg(file.path());
    output(privilege::as_root(format)?)?;
    let mut mount = Command::new("mount");
    // The loop device goes with its last mount. Nothing need outlive a loss of power, and dpkg asks for that all the time.
    mount.args(["--types", "ext4", "--options", "loop,nobarrier"]).arg(file.path()).arg(FOLDER);
    output(mount).context("a disk in a file needs loop devices (modprobe loop)")?;
    file.close().context("cannot remove the name of the disk's file")?;
    Ok(Disk(()))
}

/// What the names of this process's files begin with.
fn name() -> String {
    format!("bare-root-{}-", process::id())
}

/// A system that runs out of space because this machine does would fail as if it were its own fault.
fn check_space(folder: &Path) -> Result<()> {
    let data =
        statvfs(folder).with_context(|| format!("cannot ask for the space in {}", folder.display()))?;
    let free = data.blocks_available() * data.fragment_size();
    if free < NEEDED {
        bail!(
            "a bare system takes {} GB of disk, and {} has {} GB: make space there",
            NEEDED >> 30,
            folder.display(),
            free >> 30
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FOLDER, name, with};
    use crate::workspace;

    #[test]
    fn a_disk_is_seen_by_its_own_thread_alone_and_leaves_nothing() {
        let is_named = || {
            let mut files = fs::read_dir(workspace::root().join("target")).unwrap().filter_map(Result::ok);
            files.any(|file| file.file_name().to_string_lossy().starts_with(&name()))
        };
        let outcome = with(|disk| {
            fs::write(disk.folder().join("file"), "text").unwrap();
            (disk.folder(), is_named())
        });
        match outcome {
            Ok((folder, is_named)) => {
                assert!(!is_named);
                assert!(!folder.join("file").exists(), "{} is seen by all", folder.display());
                assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(FOLDER));
            }
            // Not every machine that runs this has root, space and loop devices; it says which is missing.
            Err(error) => {
                let error = format!("{error:#}");
                let needs = ["a mount namespace", "make space there", "mkfs.ext4", "loop devices"];
                assert!(needs.iter().any(|need| error.contains(need)), "{error}");
                assert!(!is_named());
            }
        }
    }
}
