//! Puts objects into the kernel, many at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use flannel_common::Mac;
use flannel_model::device::is_flannel;
use flannel_model::family::Family;
use flannel_model::object::Object;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{ObjectError, Objects, PROTOCOL_BOOT, address_family, message_of};
use crate::bulk::Bulk;
use crate::nexthop::{self, NextHop};
use crate::route::Route;
use crate::{Error, ROUTE_PROTOCOL};

/// From this number on, routes get next hops of their own. Fewer cost the kernel little, and look like stock flannel's.
const BULK: usize = 1000;

impl Objects {
    /// Puts each of `objects` there as [`Objects::put`] does, from the calling thread's network namespace. Returns
    /// those that could not be put.
    pub async fn put_all(&self, objects: &[Object]) -> Vec<(Object, ObjectError)> {
        let mut failed = Vec::new();
        let mut bulk = Bulk::open();
        let is_bulk = objects.len() >= BULK && nexthop::is_reported_with_routes();
        for objects in objects.chunks(Bulk::MAX) {
            let sent = match &mut bulk {
                Ok(bulk) => self.send(bulk, objects, is_bulk),
                Err(error) => Err(again(error)),
            };
            match sent {
                Ok(refused) => {
                    for (object, error) in refused {
                        if let Err(error) = self.put_refused(object, error).await {
                            failed.push((object.clone(), error));
                        }
                    }
                }
                Err(error) => {
                    let all = objects.iter();
                    failed.extend(all.map(|object| (object.clone(), refusal(object, again(&error)))));
                }
            }
            // Everybody else has a turn.
            tokio::task::yield_now().await;
        }
        failed
    }

    /// Puts the requests for `objects` to the kernel; returns those it refused.
    fn send<'a>(
        &self,
        bulk: &mut Bulk,
        objects: &'a [Object],
        is_bulk: bool,
    ) -> io::Result<Vec<(&'a Object, io::Error)>> {
        let mut gateways = vec![None; objects.len()];
        if is_bulk {
            gateways = self.put_next_hops(bulk, objects)?;
        }
        let with_gateways = objects.iter().zip(&gateways);
        let requests = with_gateways.filter_map(|(object, gateway)| self.request(object, *gateway));
        let refused = bulk.send(requests)?;
        // A refused route leaves an unused next hop.
        let unused: Vec<Ipv4Addr> =
            refused.iter().filter_map(|(place, _)| gateways.get(*place).copied().flatten()).collect();
        bulk.send(unused.into_iter().map(|gateway| (NextHop::Delete { gateway }, 0)))?;
        let is_sent = |object: &&Object| !matches!(object, Object::Peer { .. });
        let sent: Vec<&Object> = objects.iter().filter(is_sent).collect();
        let refused = refused.into_iter().filter_map(|(place, error)| Some((*sent.get(place)?, error)));
        let others = objects.iter().filter(|object| !is_sent(object));
        Ok(refused.chain(others.map(|object| (object, Errno::EINVAL.into()))).collect())
    }

    /// Adds next hops for those of `objects` that are routes by flannel's device; returns their addresses. A number
    /// that is in use may be somebody else's: such a route gets none.
    fn put_next_hops(&self, bulk: &mut Bulk, objects: &[Object]) -> io::Result<Vec<Option<Ipv4Addr>>> {
        let mut gateways: Vec<Option<Ipv4Addr>> =
            objects.iter().map(|object| self.gateway_of(object)).collect();
        let places: Vec<usize> = (0..gateways.len()).filter(|place| gateways[*place].is_some()).collect();
        let Some(device) = self.device(Family::V4) else { return Ok(gateways) };
        let add = |gateway| (NextHop::New { gateway, device }, NLM_F_CREATE | NLM_F_EXCL);
        for (place, _) in bulk.send(gateways.iter().flatten().copied().map(add))? {
            if let Some(place) = places.get(place) {
                gateways[*place] = None;
            }
        }
        Ok(gateways)
    }

    /// The gateway of a route on flannel's device, where it can be the number of a next hop: an address of IPv6 is too
    /// long for that, and its routes are found by trees anyway (`fib6_add`).
    pub(super) fn gateway_of(&self, object: &Object) -> Option<Ipv4Addr> {
        match *object {
            Object::Route { via: Some(IpAddr::V4(via)), device, onlink: true, .. }
                if self.device(Family::V4) == Some(device) =>
            {
                Some(via)
            }
            _ => None,
        }
    }

    /// The request that puts `object`, replacing another one. Only a route may be somebody else's. The route uses the
    /// next hop of that address, if one is given.
    fn request(&self, object: &Object, gateway: Option<Ipv4Addr>) -> Option<(RouteNetlinkMessage, u16)> {
        Some(match *object {
            Object::Neighbour { device, ip, mac } => {
                let message = neighbour_message(device, ip, mac);
                (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Object::Fdb { .. } => {
                let message = fdb_message(object)?;
                (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Object::Route { subnet, via, device, onlink } => {
                let route = self.route(subnet, via, device, onlink);
                let message = gateway.map_or_else(|| route.message(), |gateway| route.message_by(gateway));
                (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            }
            Object::Peer { .. } => return None,
        })
    }

    async fn put_refused(&self, object: &Object, error: io::Error) -> Result<(), ObjectError> {
        match *object {
            Object::Route { subnet, via, device, onlink }
                if error.raw_os_error() == Some(Errno::EEXIST as i32) =>
            {
                self.replace_route(&self.route(subnet, via, device, onlink)).await
            }
            _ => Err(refusal(object, error)),
        }
    }

    async fn replace_route(&self, route: &Route) -> Result<(), ObjectError> {
        let existing = self.netlink.route_of(route.destination).await?;
        if existing.as_ref() == Some(route) {
            return Ok(());
        }
        if let Some(existing) = existing
            && !self.may_replace(&existing, route).await?
        {
            let existing = self.describe(&existing).await?;
            return Err(ObjectError::RouteTaken { subnet: route.destination, existing });
        }
        Ok(self.netlink.add_route(route, true).await?)
    }

    /// Ours is what has our protocol, what uses a flannel device (of whichever backend was configured before), and what
    /// stock flannel's host-gw left on the interface ours is to use.
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

/// Removes `route` if it is by the next hop of that address, and the next hop after it; returns whether it was.
pub(super) fn remove_with_next_hop(route: &Route, gateway: Ipv4Addr) -> bool {
    let Ok(mut bulk) = Bulk::open() else { return false };
    let removal = RouteNetlinkMessage::DelRoute(route.message_by(gateway));
    let is_removed = bulk.send(std::iter::once((removal, 0))).is_ok_and(|refused| refused.is_empty());
    if is_removed {
        // Only flannel uses a number that is a peer's address.
        let _ = bulk.send(std::iter::once((NextHop::Delete { gateway }, 0)));
    }
    is_removed
}

fn refusal(object: &Object, source: io::Error) -> ObjectError {
    let operation = match object {
        Object::Neighbour { ip, mac, .. } => format!("make {mac} the permanent neighbour {ip}"),
        Object::Fdb { mac, vtep, .. } => format!("forward frames for {mac} to {vtep}"),
        Object::Route { subnet, .. } => format!("add the route to {subnet}"),
        Object::Peer { .. } => return ObjectError::NotNetlink(object.clone()),
    };
    ObjectError::Kernel(Error { operation, source })
}

/// The same error for another object.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

/// A permanent neighbour.
pub(crate) fn neighbour_message(device: u32, ip: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = message_of(address_family(ip.into()), device);
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(ip.into()),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    message
}

/// A permanent entry of a vxlan device, if `object` is one.
pub(super) fn fdb_message(object: &Object) -> Option<NeighbourMessage> {
    let Object::Fdb { device, mac, vtep, vni, port } = *object else { return None };
    let mut message = message_of(AddressFamily::Bridge, device);
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        NeighbourAttribute::Destination(vtep.into()),
    ];
    // Without them, those of the device hold.
    message.attributes.extend(vni.map(|vni| NeighbourAttribute::Vni(vni.get())));
    message.attributes.extend(port.map(NeighbourAttribute::Port));
    Some(message)
}
