//! Neighbours, forwarding entries and routes: a peer's objects in the kernel's own tables.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_common::{Mac, Vni};
use flannel_model::family::{Family, PerFamily};
use flannel_model::object::Object;
use futures::StreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use self::put::{fdb_message, remove_with_next_hop};
use super::bulk::{self, Bulk};
use super::route::{Route, RouteFilter};
use super::{During, Error, Netlink, ROUTE_PROTOCOL, absence_is_success};

/// `RTPROT_BOOT`: the protocol of routes that state none, as stock flannel's.
const PROTOCOL_BOOT: u8 = 3;

/// The objects of one backend in the kernel.
#[derive(Clone, Debug)]
pub struct Objects {
    netlink: Netlink,
    families: PerFamily<Option<u32>>,
}

/// An object could not be put into the kernel, or removed from it, or listed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// Another route to the same destination is there, and it is not ours.
    #[error(
        "the route to {subnet} is taken by `{existing}`, which is not flannel's: remove it with \
         `ip route delete {subnet}`, or keep {subnet} out of the flannel network"
    )]
    RouteTaken {
        /// The peer's subnet.
        subnet: IpNetwork,
        /// The other route, as iproute2 would print it.
        existing: String,
    },
    /// The object is an entry of the programs' own tables.
    #[error("{0:?} is not among the kernel's neighbours, forwarding entries and routes")]
    NotNetlink(Object),
}

impl Objects {
    /// The objects of each family that is served: those on flannel's own device, if the backend has one, and flannel's
    /// routes on other devices.
    #[must_use]
    pub fn new(netlink: Netlink, families: PerFamily<Option<u32>>) -> Self {
        Self { netlink, families }
    }

    /// Interface index of flannel's own device for packets of `family`.
    fn device(&self, family: Family) -> Option<u32> {
        self.families.get(family).copied().flatten()
    }

    /// Puts `object` into the kernel, replacing another one of the same key: a neighbour's address, a forwarding
    /// entry's Ethernet address, a route's destination.
    ///
    /// # Errors
    /// The kernel refused; a route that is not flannel's leads to the same destination; `object` is not one
    /// of netlink.
    pub async fn put(&self, object: &Object) -> Result<(), ObjectError> {
        self.put_all(std::slice::from_ref(object)).await.pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Removes exactly `object`: one that has replaced it stays. Absence is success.
    ///
    /// # Errors
    /// The kernel refused; `object` is not one of netlink.
    pub async fn remove(&self, object: &Object) -> Result<(), ObjectError> {
        match object {
            Object::Neighbour { device, ip, mac } => {
                Ok(self.netlink.remove_neighbour(*device, *ip, *mac).await?)
            }
            Object::Fdb { .. } => Ok(self.netlink.remove_fdb(object).await?),
            Object::Route { subnet, via, device, onlink } => {
                let route = self.route(*subnet, *via, *device, *onlink);
                if self.gateway_of(object).is_some_and(|gateway| remove_with_next_hop(&route, gateway)) {
                    return Ok(());
                }
                Ok(self.netlink.delete_route(&route).await?)
            }
            Object::Peer { .. } => Err(ObjectError::NotNetlink(object.clone())),
        }
    }

    /// Everything of flannel's in the kernel, also by earlier or stock daemons: the permanent neighbours and forwarding
    /// entries of flannel's device, the routes by it, and routes by other devices that bear [`ROUTE_PROTOCOL`]; in no
    /// order, and from the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn list(&self) -> Result<Vec<Object>, ObjectError> {
        let mut bulk =
            Bulk::open().map_err(|source| Error { operation: "list anything".to_owned(), source })?;
        let mut objects = Vec::new();
        for (family, device) in self.families.iter() {
            // What changes meanwhile is announced; what is missing from a listing would be put again.
            let before = objects.len();
            for attempt in 1.. {
                match list_family(&mut bulk, family, *device, &mut objects).await {
                    Err(ObjectError::Kernel(error))
                        if error.is_interrupted() && attempt < bulk::MOST_LISTINGS =>
                    {
                        objects.truncate(before);
                    }
                    listed => {
                        listed?;
                        break;
                    }
                }
            }
        }
        Ok(objects)
    }

    fn route(&self, subnet: IpNetwork, via: Option<IpAddr>, device: u32, onlink: bool) -> Route {
        // On flannel's own device every route is ours, so those look as stock flannel's do.
        let protocol =
            if self.device(subnet.into()) == Some(device) { PROTOCOL_BOOT } else { ROUTE_PROTOCOL };
        Route {
            destination: subnet,
            via,
            device: Some(device),
            first_device: None,
            onlink,
            protocol,
            priority: 0,
            source: None,
        }
    }
}

/// Adds what is flannel's of one family, whose device is `device`.
async fn list_family(
    bulk: &mut Bulk,
    family: Family,
    device: Option<u32>,
    objects: &mut Vec<Object>,
) -> Result<(), ObjectError> {
    let ours = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::of(family) };
    let is_elsewhere =
        |object: &Object| matches!(object, Object::Route { device: by, .. } if Some(*by) != device);
    list_routes(bulk, ours, |route| objects.extend(Some(route).filter(is_elsewhere)))?;
    let Some(device) = device else { return Ok(()) };
    tokio::task::yield_now().await;
    list_neighbours(bulk, address_family(family), device, objects)?;
    tokio::task::yield_now().await;
    list_neighbours(bulk, AddressFamily::Bridge, device, objects)?;
    tokio::task::yield_now().await;
    let by_device = RouteFilter { family, device: Some(device), protocol: Some(PROTOCOL_BOOT) };
    list_routes(bulk, by_device, |route| objects.push(route))?;
    Ok(())
}

/// The number of the family in netlink's messages.
pub(super) const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

impl Netlink {
    async fn remove_neighbour(&self, device: u32, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        // The kernel removes by address alone, and would remove an entry with a new MAC.
        let now = self.neighbour(device, ip).await?;
        if now.is_none_or(|now| link_layer_address(&now) != Some(mac)) {
            return Ok(());
        }
        let mut message = message_of(address_family(ip.into()), device);
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        let deleted = self.0.neighbours().del(message).execute().await;
        absence_is_success(deleted.during(|| format!("remove the neighbour {ip}")))
    }

    async fn remove_fdb(&self, entry: &Object) -> Result<(), Error> {
        let Some(message) = fdb_message(entry) else { return Ok(()) };
        let deleted = self.0.neighbours().del(message).execute().await;
        absence_is_success(deleted.during(|| format!("take {entry:?} away")))
    }

    async fn neighbour(&self, device: u32, ip: IpAddr) -> Result<Option<NeighbourMessage>, Error> {
        let mut message = message_of(address_family(ip.into()), device);
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        request.header.flags = NLM_F_REQUEST;
        let operation = || format!("look the neighbour {ip} up");
        let mut answers = self.0.clone().request(request).during(operation)?;
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found))) => Ok(Some(found)),
            Some(NetlinkPayload::Error(error)) => {
                let refused = Err(rtnetlink::Error::NetlinkError(error)).during(operation);
                absence_is_success(refused).map(|()| None)
            }
            _ => Ok(None),
        }
    }
}

fn list_neighbours(
    bulk: &mut Bulk,
    family: AddressFamily,
    device: u32,
    objects: &mut Vec<Object>,
) -> Result<(), Error> {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    let (operation, object): (_, fn(&NeighbourMessage) -> Option<Object>) = match family {
        // The two tables filter by device differently.
        AddressFamily::Bridge => {
            request.header.ifindex = device;
            ("list the forwarding entries", forwarding_entry)
        }
        _ => {
            request.attributes.push(NeighbourAttribute::IfIndex(device));
            ("list the neighbours", neighbour)
        }
    };
    let listed = bulk.list(RouteNetlinkMessage::GetNeighbour(request), |message| match message {
        RouteNetlinkMessage::NewNeighbour(message) if is_permanent_on(device, &message) => {
            objects.extend(object(&message));
        }
        _ => {}
    });
    listing(operation, listed)
}

fn list_routes(bulk: &mut Bulk, filter: RouteFilter, mut take: impl FnMut(Object)) -> Result<(), Error> {
    let request = RouteNetlinkMessage::GetRoute(filter.message());
    let listed = bulk.list(request, |message| {
        if let RouteNetlinkMessage::NewRoute(message) = message {
            route(&message).into_iter().for_each(&mut take);
        }
    });
    listing("list the routes", listed)
}

/// A table that does not exist is empty.
fn listing(operation: &str, listed: io::Result<()>) -> Result<(), Error> {
    absence_is_success(listed.map_err(|source| Error { operation: operation.to_owned(), source }))
}

#[cfg(test)]
pub(super) use put::neighbour_message;

/// The neighbour of a message. The Ethernet address is zero if the message has none.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Object> {
    let mac = link_layer_address(message).unwrap_or(Mac::ZERO);
    Some(Object::Neighbour { device: message.header.ifindex, ip: destination(message)?, mac })
}

/// The forwarding entry of a vxlan device in a message; `None` for those of a bridge.
pub(super) fn forwarding_entry(message: &NeighbourMessage) -> Option<Object> {
    let (device, mac) = (message.header.ifindex, link_layer_address(message)?);
    let (mut vni, mut port) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Vni(number) => vni = Vni::new(*number),
            NeighbourAttribute::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    Some(Object::Fdb { device, mac, vtep: destination(message)?, vni, port })
}

/// The route of the main table in a message.
pub(super) fn route(message: &RouteMessage) -> Option<Object> {
    Route::of_main_table(message).as_ref().and_then(object_of)
}

/// The object a route is; none with a metric, or to no device or several.
fn object_of(route: &Route) -> Option<Object> {
    let Route { destination: subnet, via, device, onlink, .. } = *route;
    route.is_without_metric().then_some(Object::Route { subnet, via, device: device?, onlink })
}

fn message_of(family: AddressFamily, device: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = device;
    message
}

fn is_permanent_on(device: u32, message: &NeighbourMessage) -> bool {
    message.header.ifindex == device && message.header.state == NeighbourState::Permanent
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        // A forwarding entry's message has the bridge's family, not that of its address.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => address_of(bytes),
        _ => None,
    })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    v4().or_else(v6)
}

pub(super) fn link_layer_address(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

mod ours;
mod put;

pub use ours::retain_ours;

#[cfg(test)]
mod tests;
