//! A TUN device.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use nix::libc::{self, c_char, c_short};

mod ioctl {
    use nix::libc::{TUNSETIFF, ifreq};

    nix::ioctl_write_ptr_bad!(set_interface, TUNSETIFF, ifreq);
}

/// Makes the device and returns its packets' file: one read or write is one IP packet, and neither waits.
/// The device goes with the file.
pub(super) fn open(name: &str) -> Result<File> {
    let path = "/dev/net/tun";
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("cannot open {path}"))?;
    // SAFETY: an ifreq is plain data, of which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long for a name");
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = byte as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as c_short;
    // SAFETY: the request is read, and lives until the call returns.
    unsafe { ioctl::set_interface(file.as_raw_fd(), &request) }
        .with_context(|| format!("cannot make the TUN device {name}"))?;
    Ok(file)
}
