//! Announcements of changed rules.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::constants::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// Longest datagram that is received, in bytes.
const DATAGRAM: usize = 64 << 10;

/// Announcements of changes by nftables, and by the variant of iptables that writes into it. Of the legacy variant
/// nothing is announced.
pub struct RulesMonitor(Option<TokioSocket>);

impl RulesMonitor {
    /// Subscribes in the calling thread's network namespace.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_ref().add_membership(GROUP)?;
        Ok(Self(Some(socket)))
    }

    /// One that announces nothing.
    #[must_use]
    pub const fn silent() -> Self {
        Self(None)
    }

    /// Waits for a change. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match std::future::poll_fn(|context| socket.poll_recv(context, &mut datagram)).await {
            // There were too many: that is a change, too.
            Err(error) if error.raw_os_error() != Some(Errno::ENOBUFS as i32) => self.0 = None,
            _ => {}
        }
    }
}
