//! Changes in the kernel's tables, as they happen.

use std::collections::VecDeque;
use std::io;

use flannel_model::object::{Change, Object};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::constants::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};

use super::OpenError;
use super::bulk::messages;
use super::objects::{forwarding_entry, neighbour, route};

/// Longest datagram that is received, in bytes.
const DATAGRAM: usize = 64 << 10;

/// A subscription to the kernel's announcements. They queue in the socket: when it overflows, that is reported in their
/// place, and memory does not grow.
pub struct Monitor {
    socket: TokioSocket,
    datagram: Vec<u8>,
    changes: VecDeque<Change>,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> Result<Self, OpenError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Tc,
        ];
        let open = || -> io::Result<_> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            groups.iter().try_for_each(|group| socket.socket_ref().add_membership(*group as u32))?;
            Ok(socket)
        };
        let socket = open().map_err(OpenError)?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM), changes: VecDeque::new() })
    }

    /// The next change. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return change;
            }
            if let Err(error) = self.receive().await {
                tracing::warn!(%error, "the kernel's notifications ended; the kernel is compared from time to time");
                std::future::pending::<()>().await;
            }
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.datagram.clear();
        match std::future::poll_fn(|context| self.socket.poll_recv(context, &mut self.datagram)).await {
            Ok(()) => {
                let changes = messages(&self.datagram).filter_map(|message| change(message.payload));
                self.changes.extend(changes);
            }
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.changes.push_back(Change::Overrun);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let NetlinkPayload::InnerMessage(message) = payload else {
        return None;
    };
    let object = |object: Option<Object>, present| object.map(|object| Change::Object { object, present });
    match message {
        RouteNetlinkMessage::NewRoute(message) => object(route(&message), true).or(Some(Change::Routes)),
        RouteNetlinkMessage::DelRoute(message) => object(route(&message), false).or(Some(Change::Routes)),
        RouteNetlinkMessage::NewNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            object(forwarding_entry(&message), true).or(Some(Change::BridgeFdb))
        }
        RouteNetlinkMessage::DelNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            object(forwarding_entry(&message), false).or(Some(Change::BridgeFdb))
        }
        RouteNetlinkMessage::NewNeighbour(message) => object(neighbour(&message), true),
        RouteNetlinkMessage::DelNeighbour(message) => object(neighbour(&message), false),
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            Some(Change::Interface(message.header.index))
        }
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
            Some(Change::Interface(message.header.index))
        }
        RouteNetlinkMessage::DelTrafficFilter(message)
        | RouteNetlinkMessage::NewQueueDiscipline(message)
        | RouteNetlinkMessage::DelQueueDiscipline(message) => {
            u32::try_from(message.header.index).ok().map(Change::Interface)
        }
        _ => None,
    }
}
