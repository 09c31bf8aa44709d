//! Neighbours, forwarding entries and routes: what a peer is made of in the kernel's own tables.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use flannel_common::Mac;
use futures::StreamExt;
use ipnetwork::Ipv4Network;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::device::is_flannel;
use super::route::{ROUTE_PROTOCOL, Route, RouteFilter};
use super::{During, Error, Netlink, absence_is_success, collect};
use crate::backend::Object;

/// `RTPROT_BOOT`: what routes bear that state no protocol, as stock flannel's.
const PROTOCOL_BOOT: u8 = 3;

/// The objects of one backend in the kernel.
#[derive(Clone, Debug)]
pub struct Objects {
    netlink: Netlink,
    device: Option<u32>,
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
        subnet: Ipv4Network,
        /// The other route, as iproute2 would print it.
        existing: String,
    },
    /// The object is an entry of the programs' own tables.
    #[error("{0:?} is not among the kernel's neighbours, forwarding entries and routes")]
    NotNetlink(Object),
}

impl Objects {
    /// The objects on flannel's own device, if the backend has one, and flannel's routes on other devices.
    #[must_use]
    pub fn new(netlink: Netlink, device: Option<u32>) -> Self {
        Self { netlink, device }
    }

    /// Puts `object` into the kernel, in place of another one of the same key: a neighbour's address, a
    /// forwarding entry's Ethernet address, a route's destination.
    ///
    /// # Errors
    /// The kernel refused; a route that is not flannel's leads to the same destination; `object` is not one
    /// of netlink.
    pub async fn put(&self, object: &Object) -> Result<(), ObjectError> {
        match object {
            Object::Neighbour { device, ip, mac } => {
                Ok(self.netlink.put_neighbour(*device, *ip, *mac).await?)
            }
            Object::Fdb { device, mac, vtep } => Ok(self.netlink.put_fdb(*device, *mac, *vtep).await?),
            Object::Route { subnet, via, device, onlink } => {
                self.put_route(&self.route(*subnet, *via, *device, *onlink)).await
            }
            Object::Peer { .. } => Err(ObjectError::NotNetlink(object.clone())),
        }
    }

    /// Removes exactly `object`: one that has taken its place since stays. Absence is success.
    ///
    /// # Errors
    /// The kernel refused; `object` is not one of netlink.
    pub async fn remove(&self, object: &Object) -> Result<(), ObjectError> {
        match object {
            Object::Neighbour { device, ip, mac } => {
                Ok(self.netlink.remove_neighbour(*device, *ip, *mac).await?)
            }
            Object::Fdb { device, mac, vtep } => Ok(self.netlink.remove_fdb(*device, *mac, *vtep).await?),
            Object::Route { subnet, via, device, onlink } => {
                Ok(self.netlink.delete_route(&self.route(*subnet, *via, *device, *onlink)).await?)
            }
            Object::Peer { .. } => Err(ObjectError::NotNetlink(object.clone())),
        }
    }

    /// Everything of flannel's that is in the kernel, whoever put it there: the permanent neighbours and
    /// forwarding entries of flannel's device, the routes by it, and routes by other devices that bear
    /// [`ROUTE_PROTOCOL`].
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn list(&self) -> Result<BTreeSet<Object>, ObjectError> {
        let ours = RouteFilter { device: None, protocol: Some(ROUTE_PROTOCOL) };
        let mut routes = self.netlink.main_table(ours).await?;
        routes.retain(|route| route.device != self.device);
        let mut objects = BTreeSet::new();
        if let Some(device) = self.device {
            objects.append(&mut self.netlink.neighbours(device).await?);
            objects.append(&mut self.netlink.fdb(device).await?);
            let by_device = RouteFilter { device: Some(device), protocol: Some(PROTOCOL_BOOT) };
            routes.append(&mut self.netlink.main_table(by_device).await?);
        }
        objects.extend(routes.iter().filter_map(object_of));
        Ok(objects)
    }

    fn route(&self, subnet: Ipv4Network, via: Option<Ipv4Addr>, device: u32, onlink: bool) -> Route {
        // On flannel's own device every route is ours, so those look as stock flannel's do.
        let protocol = if self.device == Some(device) { PROTOCOL_BOOT } else { ROUTE_PROTOCOL };
        Route { destination: subnet, via, device: Some(device), onlink, protocol, priority: 0, source: None }
    }

    async fn put_route(&self, route: &Route) -> Result<(), ObjectError> {
        match self.netlink.add_route(route, false).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            added => return Ok(added?),
        }
        if let Some(existing) = self.netlink.route_of(route.destination).await?
            && !self.may_replace(&existing, route).await?
        {
            let existing = self.describe(&existing).await?;
            return Err(ObjectError::RouteTaken { subnet: route.destination, existing });
        }
        Ok(self.netlink.add_route(route, true).await?)
    }

    /// Ours is what bears our protocol, what uses a flannel device (of whichever backend was configured
    /// before), and what stock flannel's host-gw left on the interface ours is to use.
    async fn may_replace(&self, existing: &Route, wanted: &Route) -> Result<bool, Error> {
        if existing.protocol == ROUTE_PROTOCOL {
            return Ok(true);
        }
        if existing.protocol != PROTOCOL_BOOT {
            return Ok(false);
        }
        if existing.device == wanted.device {
            return Ok(true);
        }
        let Some(device) = existing.device else { return Ok(false) };
        Ok(self.netlink.link_by_index(device).await?.is_some_and(|link| is_flannel(&link.name)))
    }

    async fn describe(&self, route: &Route) -> Result<String, Error> {
        let mut text = route.destination.to_string();
        if let Some(via) = route.via {
            text += &format!(" via {via}");
        }
        if let Some(device) = route.device {
            let link = self.netlink.link_by_index(device).await?;
            text += &format!(" dev {}", link.map_or_else(|| device.to_string(), |link| link.name));
        }
        Ok(text + &format!(" proto {}", route.protocol))
    }
}

impl Netlink {
    async fn put_neighbour(&self, device: u32, ip: Ipv4Addr, mac: Mac) -> Result<(), Error> {
        let request = self.0.neighbours().add(device, ip.into()).link_layer_address(&mac.0).replace();
        request.execute().await.during(|| format!("make {mac} the permanent neighbour {ip}"))
    }

    async fn put_fdb(&self, device: u32, mac: Mac, vtep: Ipv4Addr) -> Result<(), Error> {
        let request = self.0.neighbours().add_bridge(device, &mac.0).destination(vtep.into());
        let request = request.flags(NeighbourFlags::Own).replace();
        request.execute().await.during(|| format!("forward frames for {mac} to {vtep}"))
    }

    async fn remove_neighbour(&self, device: u32, ip: Ipv4Addr, mac: Mac) -> Result<(), Error> {
        // The kernel removes by address alone, and would take an entry that has a new MAC by now.
        let now = self.neighbour(device, ip).await?;
        if now.is_none_or(|now| link_layer_address(&now) != Some(mac)) {
            return Ok(());
        }
        let mut message = message_of(AddressFamily::Inet, device);
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
        let deleted = self.0.neighbours().del(message).execute().await;
        absence_is_success(deleted.during(|| format!("remove the neighbour {ip}")))
    }

    async fn remove_fdb(&self, device: u32, mac: Mac, vtep: Ipv4Addr) -> Result<(), Error> {
        let mut message = message_of(AddressFamily::Bridge, device);
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(vtep)),
        ];
        let deleted = self.0.neighbours().del(message).execute().await;
        absence_is_success(deleted.during(|| format!("stop forwarding frames for {mac} to {vtep}")))
    }

    async fn neighbour(&self, device: u32, ip: Ipv4Addr) -> Result<Option<NeighbourMessage>, Error> {
        let mut message = message_of(AddressFamily::Inet, device);
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
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

    async fn neighbours(&self, device: u32) -> Result<BTreeSet<Object>, Error> {
        let mut request = self.0.neighbours().get().set_address_family(AddressFamily::Inet);
        request.message_mut().attributes.push(NeighbourAttribute::IfIndex(device));
        let pick = |message: NeighbourMessage| {
            is_permanent_on(device, &message).then(|| neighbour(&message)).flatten()
        };
        collect(request.execute(), "list the neighbours", pick).await
    }

    async fn fdb(&self, device: u32) -> Result<BTreeSet<Object>, Error> {
        let mut request = self.0.neighbours().get().set_address_family(AddressFamily::Bridge);
        request.message_mut().header.ifindex = device;
        let pick = |message: NeighbourMessage| {
            is_permanent_on(device, &message).then(|| forwarding_entry(&message)).flatten()
        };
        collect(request.execute(), "list the forwarding entries", pick).await
    }
}

/// The neighbour a message tells of. The Ethernet address is zero where it tells none.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Object> {
    let mac = link_layer_address(message).unwrap_or(Mac::ZERO);
    Some(Object::Neighbour { device: message.header.ifindex, ip: destination(message)?, mac })
}

/// The forwarding entry of a vxlan device a message tells of; nothing for those of a bridge.
pub(super) fn forwarding_entry(message: &NeighbourMessage) -> Option<Object> {
    let mac = link_layer_address(message)?;
    Some(Object::Fdb { device: message.header.ifindex, mac, vtep: destination(message)? })
}

/// The route of the main table a message tells of.
pub(super) fn route(message: &RouteMessage) -> Option<Object> {
    Route::of_main_table(message).as_ref().and_then(object_of)
}

/// The object a route is; none with a metric, or to no device or several.
fn object_of(route: &Route) -> Option<Object> {
    let Route { destination: subnet, via, device, onlink, priority, .. } = *route;
    (priority == 0).then_some(Object::Route { subnet, via, device: device?, onlink })
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

fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        // A forwarding entry's message is of the bridge's family, which does not tell that of its address.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

pub(super) fn link_layer_address(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
