//! The BPF file system, and our directory in it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;
use tracing::info;

use super::DatapathError;

/// Where the BPF file system is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// Our directory for pins, held by this process alone.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    /// Released by the kernel when the process ends, however it ends.
    _lock: Flock<File>,
}

impl PinDir {
    /// Makes the directory, mode 0700, mounting the BPF file system if need be, and takes the lock on it.
    pub fn open(path: &Path) -> Result<Self, DatapathError> {
        if path.starts_with(BPFFS) {
            mount_bpffs(Path::new(BPFFS))?;
        }
        let directory = |source| DatapathError::Directory { path: path.to_owned(), source };
        for part in [path.to_owned(), path.join("maps"), path.join("links"), path.join("filters")] {
            make_private(&part).map_err(directory)?;
        }
        check_filesystem(path).map_err(directory)?;
        let handle = File::open(path).map_err(directory)?;
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DatapathError::Locked { path: path.to_owned() }),
            Err((_, errno)) => Err(directory(errno.into())),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where links are pinned.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    /// Where programs of filters under clsact are pinned.
    #[must_use]
    pub fn filters(&self) -> PathBuf {
        self.path.join("filters")
    }
}

fn mount_bpffs(path: &Path) -> Result<(), DatapathError> {
    if is_bpffs(path) {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), none)
        .map_err(|errno| DatapathError::Mount { path: path.to_owned(), source: errno.into() })?;
    info!(path = %path.display(), "mounted the BPF file system");
    Ok(())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

fn check_filesystem(path: &Path) -> io::Result<()> {
    if is_bpffs(path) { Ok(()) } else { Err(io::Error::other("it is not on a BPF file system")) }
}

/// A directory that nobody else can reach into; one that is there must be ours already.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
