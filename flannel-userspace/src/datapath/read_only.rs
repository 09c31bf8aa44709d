//! Pinned maps opened for reading alone: by such a file descriptor the kernel lets nobody write.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{MapData, MapError};
use nix::errno::Errno;
use nix::libc;

/// `BPF_OBJ_GET`
const OBJECT_GET: libc::c_long = 7;
/// `BPF_F_RDONLY`
const READ_ONLY: u32 = 8;

/// What the kernel takes with [`OBJECT_GET`]: the beginning of its `union bpf_attr`.
#[repr(C)]
struct Attributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens the map pinned at `path` for reading.
pub(super) fn open(path: &Path) -> Result<MapData, MapError> {
    MapData::from_fd(object(path).map_err(MapError::IoError)?)
}

fn object(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        Attributes { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: READ_ONLY };
    // SAFETY: the kernel reads the attributes, whose size it is told, and the path up to its end. Both outlive the
    // call.
    let opened =
        unsafe { libc::syscall(libc::SYS_bpf, OBJECT_GET, &raw const attributes, size_of::<Attributes>()) };
    let number = i32::try_from(Errno::result(opened)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::object;

    #[test]
    fn what_is_not_there_is_told() {
        let error = object(Path::new("/sys/fs/bpf/nobody-is-here")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
