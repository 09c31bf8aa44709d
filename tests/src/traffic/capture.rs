//! Frames as they pass an interface.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;
use crate::wait;

/// More of a frame is not kept.
pub const LONGEST_FRAME: usize = 1 << 16;
const BUFFER: usize = 16 << 20;

/// What passes an interface from the start of the capture on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Begins to keep the frames an interface sends and receives, as they are before any TC program sees
    /// them on receipt and after it on sending.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let (socket, _) = packet_socket(namespace, interface)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(Self { socket })
    }

    /// Waits for a frame from which `pick` makes something, and returns that.
    ///
    /// # Errors
    /// None comes within `limit`, [stretched](wait::stretched).
    pub fn find<T>(
        &self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let limit = wait::stretched(limit);
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

    /// Shows `look` every frame that has passed so far, and those that come until none does for 20 ms.
    ///
    /// # Errors
    /// The socket fails.
    pub fn each(&self, look: impl FnMut(&[u8])) -> Result<()> {
        self.each_within(Duration::MAX, look)
    }

    /// The same where frames may keep coming: those of `limit` are shown.
    ///
    /// # Errors
    /// The socket fails.
    pub fn each_within(&self, limit: Duration, mut look: impl FnMut(&[u8])) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit
            && let Some(frame) = self.next()?
        {
            look(&frame);
        }
        Ok(())
    }

    /// The next frame; none if there is none within 20 ms.
    fn next(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; LONGEST_FRAME];
        match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A socket for whole frames of an interface of `namespace`, and what packet sockets call that.
pub(super) fn packet_socket(namespace: &Namespace, interface: &str) -> Result<(OwnedFd, LinkAddr)> {
    namespace.within(|| {
        let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        let address = link_address(i32::try_from(index)?)?;
        // It receives nothing until it is bound to an interface.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok((socket, address))
    })
}

/// What a packet socket calls the interface with this index, for frames of every protocol.
fn link_address(index: i32) -> Result<LinkAddr> {
    let (family, protocol) = (u16::try_from(libc::AF_PACKET)?, u16::try_from(libc::ETH_P_ALL)?);
    let address = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the address is one of this family, as long as is said.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) }
        .context("not an address of a link")
}
