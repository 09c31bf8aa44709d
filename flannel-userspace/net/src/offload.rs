//! The offloads of a device, by ethtool's ioctl: rtnetlink has no message for them.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc::{self, c_char};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{During as _, Error};

/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM` of `linux/ethtool.h`.
const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

mod ioctl {
    use nix::libc::{SIOCETHTOOL, ifreq};

    nix::ioctl_readwrite_bad!(ethtool, SIOCETHTOOL, ifreq);
}

/// Turns checksum offload off, so that the kernel completes checksums before the device. That also turns segmentation
/// offload off, which the kernel does not allow without it (`netdev_fix_features`).
///
/// # Errors
/// The kernel refused.
pub(super) fn finish_checksums(device: &str) -> Result<(), Error> {
    let during = || format!("turn off transmit checksum offload of interface {device}");
    // Every change is announced, and causes a comparison.
    if call(device, GET_TX_CHECKSUM, 0).during(during)? == 0 {
        return Ok(());
    }
    call(device, SET_TX_CHECKSUM, 0).map(drop).during(during)
}

/// Whether the device offers checksum offload.
///
/// # Errors
/// The kernel refused.
pub(super) fn promises_checksums(device: &str) -> Result<bool, Error> {
    let during = || format!("ask for the transmit checksum offload of interface {device}");
    call(device, GET_TX_CHECKSUM, 0).map(|answer| answer != 0).during(during)
}

fn call(device: &str, command: u32, data: u32) -> io::Result<u32> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data };
    // SAFETY: an ifreq is plain data, of which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *target = byte as c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel reads and writes the request and the value it points to, and both live until the call
    // returns.
    unsafe { ioctl::ethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(value.data)
}
