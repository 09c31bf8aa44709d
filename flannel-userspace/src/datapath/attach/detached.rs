//! Whether a pinned link still leads to an interface. Whoever may can detach a link, and the kernel announces that to
//! nobody: the pin stays, and only asking tells.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

/// Opens a pin: a command of bpf(2), and what it takes.
const OBJ_GET: libc::c_int = 7;
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Tells what is behind a descriptor.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Detaches a link at once: the removal of its pin does it some time later.
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

/// Whether the link is detached, or its pin gone.
pub(super) fn is_detached(pin: &Path) -> bool {
    interface_of(pin).is_ok_and(|interface| interface == 0) || !pin.exists()
}

/// Detaches the pinned link, now. One that leads nowhere any more is as good.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let link = open_pin(pin)?;
    let link_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    bpf(LINK_DETACH, &LinkDetach { link_fd }).map(drop)
}

/// Opens whatever is pinned there.
pub(in crate::datapath) fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = ObjGet { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(OBJ_GET, &get)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn interface_of(pin: &Path) -> io::Result<u32> {
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
