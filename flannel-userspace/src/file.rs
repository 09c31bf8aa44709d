//! Files that others read while we write.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// For everybody to read.
pub const PUBLIC: u32 = 0o644;
/// For the owner alone.
pub const PRIVATE: u32 = 0o600;

/// Makes the directory of `path` where it is absent.
///
/// # Errors
/// The file system refuses.
pub fn create_directory_of(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory_of(path))
}

/// Puts `bytes` at `path`, whose directory exists, in one step: who reads it sees all of them, or what was there
/// before. The mode is `mode`, whatever the umask.
///
/// # Errors
/// The file system refuses. What was at `path` is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = directory_of(path);
    let mut file = tempfile::Builder::new().prefix(".flannel.").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

/// The directory in which `path` lies, also for a bare file name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
