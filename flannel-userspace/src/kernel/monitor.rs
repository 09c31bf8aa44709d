//! What changes in the kernel's tables, as it happens.

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::SocketAddr;
use tracing::Instrument as _;

use super::OpenError;
use super::objects::{forwarding_entry, neighbour, route};
use crate::backend::Object;

/// Something changed in the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A neighbour, a forwarding entry or a route that bears the marks of ours, or stands where one of ours
    /// should, is there or is gone.
    Object {
        /// What was told. Of a neighbour that is gone the Ethernet address may be zero.
        object: Object,
        /// Whether it is there.
        present: bool,
    },
    /// A bridge learned or forgot a station.
    Stations,
    /// An interface came, went or changed, or an address did, or a qdisc; or a program was taken off one.
    Interfaces,
    /// Changes were lost: there were too many at once.
    Overrun,
}

/// A subscription to the kernel's announcements.
pub struct Monitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
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
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(OpenError)?;
        tokio::spawn(connection.in_current_span());
        Ok(Self { messages })
    }

    /// The next change. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Change {
        loop {
            match self.messages.next().await {
                Some((message, _)) => {
                    if let Some(change) = change(message.payload) {
                        return change;
                    }
                }
                // The socket is closed; the sweeps go on.
                None => std::future::pending().await,
            }
        }
    }
}

fn change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let NetlinkPayload::InnerMessage(message) = payload else {
        return matches!(payload, NetlinkPayload::Overrun(_)).then_some(Change::Overrun);
    };
    let object = |object: Option<Object>, present| object.map(|object| Change::Object { object, present });
    match message {
        RouteNetlinkMessage::NewRoute(message) => object(route(&message), true),
        RouteNetlinkMessage::DelRoute(message) => object(route(&message), false),
        RouteNetlinkMessage::NewNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            object(forwarding_entry(&message), true).or(Some(Change::Stations))
        }
        RouteNetlinkMessage::DelNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            object(forwarding_entry(&message), false).or(Some(Change::Stations))
        }
        RouteNetlinkMessage::NewNeighbour(message) => object(neighbour(&message), true),
        RouteNetlinkMessage::DelNeighbour(message) => object(neighbour(&message), false),
        RouteNetlinkMessage::NewLink(_)
        | RouteNetlinkMessage::DelLink(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_)
        | RouteNetlinkMessage::DelTrafficFilter(_)
        | RouteNetlinkMessage::NewQueueDiscipline(_)
        | RouteNetlinkMessage::DelQueueDiscipline(_) => Some(Change::Interfaces),
        _ => None,
    }
}
