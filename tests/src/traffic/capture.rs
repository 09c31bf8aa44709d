//! Frames as they pass an interface.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;

/// More of a frame is not kept.
pub const LONGEST_FRAME: usize = 1 << 16;
const BUFFER: usize = 16 << 20;

/// What passes an interface from the start of the capture on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    interface: usize,
}

impl Capture {
    /// Begins to keep the frames an interface sends and receives, as they are before any TC program sees
    /// them on receipt and after it on sending.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let (socket, interface) = packet_socket(namespace, interface)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(Self { socket, interface: usize::try_from(interface)? })
    }

    /// Waits for a frame from which `pick` makes something, and returns that.
    ///
    /// # Errors
    /// None comes within `limit`.
    pub fn find<T>(
        &self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let (end, mut frames) = (Instant::now() + limit, 0);
        while Instant::now() < end {
            let Some(frame) = self.next()? else { continue };
            if let Some(found) = pick(&frame) {
                return Ok(found);
            }
            frames += 1;
        }
        bail!("no {what} among {frames} frames in {limit:?}")
    }

    /// The next frame; none if there is none within 20 ms, or if it passed another interface.
    fn next(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; LONGEST_FRAME];
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
            Ok((length, Some(from))) if from.ifindex() == self.interface => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Ok(_) | Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A socket for whole frames in `namespace`, and the index of its interface with this name.
pub(super) fn packet_socket(namespace: &Namespace, interface: &str) -> Result<(OwnedFd, u32)> {
    namespace.within(|| {
        let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        Ok((socket, index))
    })
}
