//! The commands of bpf(2) that aya does not have.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

/// `BPF_OBJ_GET` opens a pin.
const OBJ_GET: libc::c_int = 7;
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_F_RDONLY`: a descriptor that cannot be written.
const READ_ONLY: u32 = 8;

/// `BPF_OBJ_GET_INFO_BY_FD` says what is behind a descriptor.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `BPF_LINK_DETACH` detaches a link at once: the removal of its pin does it some time later.
const LINK_DETACH: libc::c_int = 34;
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// The beginning of `struct bpf_link_info`, the same for TCX and XDP.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// Interface index; zero when it is detached.
    interface: u32,
}

/// Opens whatever is pinned there.
pub fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    open(pin, 0)
}

/// Opens the map pinned there for reading alone.
pub fn open_for_reading(pin: &Path) -> io::Result<OwnedFd> {
    open(pin, READ_ONLY)
}

fn open(pin: &Path, file_flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = ObjGet { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags };
    let fd = bpf(OBJ_GET, &get)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches the link pinned there, at once. A detached link is no error.
pub fn detach(pin: &Path) -> io::Result<()> {
    let link = open_pin(pin)?;
    let link_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    bpf(LINK_DETACH, &LinkDetach { link_fd }).map(drop)
}

/// Interface index to which the link pinned there is attached; zero when it is detached.
pub fn interface_of(pin: &Path) -> io::Result<u32> {
    let link = open_pin(pin)?;
    let mut info = LinkInfo::default();
    let get_info = ObjGetInfo {
        bpf_fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
        info_len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &get_info)?;
    Ok(info.interface)
}

/// One of the commands above.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads no more than the attributes' size, and what they point to lives in the callers for longer
    // than this call and is as large as they say.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match libc::c_int::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::open_for_reading;

    #[test]
    fn a_missing_pin_is_an_error() {
        let error = open_for_reading(Path::new("/sys/fs/bpf/nobody-is-here")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
