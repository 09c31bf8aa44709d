//! Policies of IPsec (XFRM): which packets the stack has to transform, or must not let pass. The stack asks them when
//! it sends a packet of its own (`xfrm_lookup_with_ifid`), and before a socket gets one (`__xfrm_policy_check`).
//! Programs that send and take packets beside the stack bypass them.

mod policy;

use std::io;

use netlink_packet_xfrm::XfrmMessage;
use netlink_packet_xfrm::policy::{DefaultMessage, DelGetMessage};
use nix::errno::Errno;
use nix::libc::MSG_DONTWAIT;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::constants::NETLINK_XFRM;
use rtnetlink::sys::{AsyncSocket as _, Socket, SocketAddr, TokioSocket};

use crate::bulk::frames;
pub use policy::{Direction, Policy, Tunnel, first_concerned};

/// Longest datagram that is received, in bytes.
const DATAGRAM: usize = 64 << 10;
/// `XFRMNLGRP_POLICY`
const POLICY_GROUP: u32 = 4;

/// The policies of the calling thread's network namespace that transform or block packets of IPv4 which the host itself
/// sends or takes; none where the kernel has no IPsec.
///
/// # Errors
/// The kernel refused: without `CAP_NET_ADMIN` it tells nothing.
pub fn policies() -> io::Result<Vec<Policy>> {
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Err(error) if is_without_ipsec(&error) => return Ok(Vec::new()),
        socket => socket?,
    };
    socket.bind_auto()?;
    let mut policies = Vec::new();
    ask(&socket, XfrmMessage::GetPolicy(DelGetMessage::default()), NLM_F_DUMP, |message| {
        if let XfrmMessage::AddPolicy(message) = message {
            policies.extend(Policy::of(&message));
        }
    })?;
    let defaults = ask(&socket, XfrmMessage::GetPolicyDefault(DefaultMessage::default()), 0, |message| {
        if let XfrmMessage::GetPolicyDefault(DefaultMessage { user_policy }) = message {
            policies.extend(Policy::of_defaults(user_policy));
        }
    });
    match defaults {
        // Before 5.15 there were none.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(policies),
        asked => asked.map(|()| policies),
    }
}

/// Whether the socket is missing because no policy can be made.
fn is_without_ipsec(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT))
}

/// Hands every answer to `take`. The kernel has answered when the request returns.
fn ask(
    socket: &Socket,
    request: XfrmMessage,
    flags: u16,
    mut take: impl FnMut(XfrmMessage),
) -> io::Result<()> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::with_capacity(DATAGRAM);
    loop {
        answer.clear();
        socket.recv(&mut answer, MSG_DONTWAIT)?;
        for frame in frames(&answer) {
            // A policy that cannot be read must not be taken for none.
            match NetlinkMessage::deserialize(frame).map_err(io::Error::other)?.payload {
                NetlinkPayload::InnerMessage(message) => {
                    take(message);
                    if flags & NLM_F_DUMP == 0 {
                        return Ok(());
                    }
                }
                NetlinkPayload::Error(refusal) => return Err(refusal.to_io()),
                NetlinkPayload::Done(_) => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Announcements of policies that come, go or change; those of the defaults are not announced.
pub struct PolicyMonitor(Option<TokioSocket>);

impl PolicyMonitor {
    /// Subscribes in the calling thread's network namespace. Where the kernel has no IPsec, nothing is announced.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> io::Result<Self> {
        let mut socket = match TokioSocket::new(NETLINK_XFRM) {
            Err(error) if is_without_ipsec(&error) => return Ok(Self(None)),
            socket => socket?,
        };
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_ref().add_membership(POLICY_GROUP)?;
        Ok(Self(Some(socket)))
    }

    /// Waits for a change. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match std::future::poll_fn(|context| socket.poll_recv(context, &mut datagram)).await {
            Ok(()) => {}
            // There were too many: that is a change, too.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            Err(error) => {
                tracing::warn!(%error, "changes of IPsec policies are not announced any more; they are read each second");
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
