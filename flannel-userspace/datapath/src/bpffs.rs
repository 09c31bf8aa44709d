//! The BPF file system, and our directory in it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use flannel_common::ABI_VERSION;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;
use tracing::info;

use super::DatapathError;

/// Where the BPF file system is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// What the name of a directory of maps begins with; the number of the layout follows.
const MAPS: &str = "maps@";

/// What is in the directory besides maps.
const PARTS: [&str; 3] = ["links", "filters", "qdiscs"];

/// Our directory for pins, held by this process alone.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    /// Released by the kernel when the process ends, however it ends.
    _lock: Flock<File>,
}

impl PinDir {
    /// Mounts the BPF file system for the directory, if necessary. Only this takes `CAP_SYS_ADMIN`.
    pub fn mount(path: &Path) -> Result<(), DatapathError> {
        if path.starts_with(BPFFS) { mount_bpffs(Path::new(BPFFS)) } else { Ok(()) }
    }

    /// Creates the directory with mode 0700 and locks it; mounts the BPF file system if necessary.
    pub fn open(path: &Path) -> Result<Self, DatapathError> {
        Self::mount(path)?;
        for part in parts(path) {
            make_private(&part).map_err(unusable(&part))?;
        }
        Self::lock(path)
    }

    /// The same for an existing directory; `None` if there is none.
    ///
    /// # Errors
    /// It is not ours, or a daemon holds it.
    pub fn existing(path: &Path) -> Result<Option<Self>, DatapathError> {
        if path.is_dir() { Self::lock(path).map(Some) } else { Ok(None) }
    }

    /// Whether something is pinned there, by a daemon that runs or has run.
    #[must_use]
    pub fn is_in_use(path: &Path) -> bool {
        let is_empty = |part: PathBuf| names_in(&part).is_ok_and(|names| names.is_empty());
        // The directory itself holds the others.
        !parts(path).skip(1).all(is_empty)
    }

    fn lock(path: &Path) -> Result<Self, DatapathError> {
        check_place(path)?;
        let metadata = fs::metadata(path).and_then(|metadata| check_owner(&metadata));
        metadata.and_then(|()| check_filesystem(path)).map_err(unusable(path))?;
        let handle = File::open(path).map_err(unusable(path))?;
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DatapathError::Locked { path: path.to_owned() }),
            Err((_, errno)) => Err(unusable(path)(errno.into())),
        }
    }

    /// Removes the directory and everything pinned in it. That detaches what only a pin kept attached.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(self) -> Result<(), DatapathError> {
        fs::remove_dir_all(&self.path).map_err(unusable(&self.path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where maps are pinned in this build's layout.
    #[must_use]
    pub fn maps(path: &Path) -> PathBuf {
        path.join(maps_directory(ABI_VERSION))
    }

    /// Where builds with other layouts have pinned maps, if there are any left.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn other_maps(&self) -> Result<Vec<PathBuf>, DatapathError> {
        let own = maps_directory(ABI_VERSION);
        let names = names_in(&self.path)?.into_iter();
        Ok(names
            .filter(|name| name.starts_with(MAPS) && *name != own)
            .map(|name| self.path.join(name))
            .collect())
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

    /// Where the clsact qdiscs that are ours are noted, by the index of their interface.
    #[must_use]
    pub fn qdiscs(&self) -> PathBuf {
        self.path.join("qdiscs")
    }
}

impl Drop for PinDir {
    /// A daemon that has pinned nothing leaves nothing behind.
    fn drop(&mut self) {
        // Those with something in them stay.
        for part in parts(&self.path).rev() {
            let _ = fs::remove_dir(part);
        }
    }
}

/// The directory itself, and those in it.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> {
    let maps = maps_directory(ABI_VERSION);
    let inner = PARTS.map(|part| path.join(part));
    [path.to_owned(), path.join(maps)].into_iter().chain(inner)
}

/// Name of the directory of maps in this layout.
fn maps_directory(layout: u32) -> String {
    format!("{MAPS}{layout}")
}

/// The names of what is in a directory; none where there is no such directory.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    });
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(unusable(directory)),
    }
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Directory { path: path.to_owned(), source }
}

fn mount_bpffs(path: &Path) -> Result<(), DatapathError> {
    if is_bpffs(path) {
        return Ok(());
    }
    // By itself the kernel makes it a directory like /tmp (bpf_fill_super).
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
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
    check_owner(&metadata)?;
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Fails if somebody but root and this user could put another directory in the place of `path`, at any of its components.
fn check_place(path: &Path) -> Result<(), DatapathError> {
    let real = path.canonicalize().map_err(unusable(path))?;
    for above in
        path.ancestors().chain(real.ancestors()).filter(|above| above.is_absolute() && *above != real)
    {
        fs::metadata(above).and_then(|metadata| check_above(&metadata)).map_err(unusable(above))?;
    }
    Ok(())
}

fn check_above(metadata: &fs::Metadata) -> io::Result<()> {
    // In a directory with the sticky bit, only an entry's owner can rename it.
    let others_may_write = metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0;
    match metadata.uid() {
        uid if uid != 0 && uid != geteuid().as_raw() => Err(belongs_to(uid)),
        _ if others_may_write => Err(io::Error::other("others may write to it")),
        _ => Ok(()),
    }
}

fn belongs_to(uid: u32) -> io::Error {
    io::Error::other(format!("it belongs to user {uid}"))
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.uid() == geteuid().as_raw() { Ok(()) } else { Err(belongs_to(metadata.uid())) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use flannel_model::error::Chain;
    use nix::mount::umount;
    use nix::sys::statvfs::{FsFlags, statvfs};

    use super::{PinDir, check_place, mount_bpffs};

    #[test]
    fn our_mount_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        mount_bpffs(directory.path()).unwrap();
        let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
        let flags = statvfs(directory.path()).unwrap().flags();
        umount(directory.path()).unwrap();
        assert_eq!(mode & 0o777, 0o700);
        assert!(flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC), "{flags:?}");
    }

    #[test]
    fn nobody_else_owns_or_writes_to_a_directory_above() {
        let directory = tempfile::tempdir().unwrap();
        let above = directory.path().join("flannel");
        let path = above.join("network");
        fs::create_dir_all(&path).unwrap();
        let link = directory.path().join("link");
        symlink(&above, &link).unwrap();
        let linked = link.join("network");
        check_place(&path).unwrap();
        check_place(&linked).unwrap();
        let refusal = |path| format!("{}", Chain(&check_place(path).unwrap_err()));
        fs::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
        assert!(
            refusal(&path).contains("flannel for pins") && refusal(&path).ends_with("others may write to it")
        );
        fs::set_permissions(&above, Permissions::from_mode(0o1777)).unwrap();
        check_place(&path).unwrap();
        chown(&above, Some(65534), None).unwrap();
        for path in [&path, &linked] {
            assert!(refusal(path).ends_with("it belongs to user 65534"), "{}", refusal(path));
        }
        assert!(PinDir::existing(&path).is_err());
    }
}
