//! Files that others read while we write.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

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

/// Replaces the file at `path`, whose directory exists, by `bytes` in one step: a reader sees all of them, or the
/// former content. The mode is `mode`, independent of the umask.
///
/// # Errors
/// The file system refuses. What was at `path` is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = new_name(path)?;
    // The file of a killed writer is overwritten, so that at most one is left.
    ignore_absent(fs::remove_file(&new))?;
    let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&new)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        ignore_absent(fs::remove_file(&new))?;
    }
    written?;
    File::open(directory_of(path))?.sync_all()
}

/// The name of the file beside `path` until it is complete.
fn new_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut new = OsString::from(".flannel.");
    new.push(name);
    Ok(directory_of(path).join(new))
}

fn ignore_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The directory in which `path` lies, also for a bare file name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
