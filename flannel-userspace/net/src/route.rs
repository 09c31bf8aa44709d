//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_common::wire::PROTOCOL_UDP;
use flannel_model::family::Family;
use flannel_model::underlay::{Hop, Underlay};
use futures::{StreamExt, TryStreamExt};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::bulk::Bulk;
use super::{During, Error, Netlink, absence_is_success, collect};

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub destination: IpNetwork,
    /// Next hop; absent for a route to the device itself, or to none or several.
    pub via: Option<IpAddr>,
    /// Interface index; absent for a route to no device or to several.
    pub device: Option<u32>,
    /// Whether the next hop is taken to be on the device's link.
    pub onlink: bool,
    /// Interface index of the first of several next hops.
    pub first_device: Option<u32>,
    /// Who put it there, `RTPROT_*`.
    pub protocol: u8,
    /// Metric; of two routes to one destination the one with the lower metric is used.
    pub priority: u32,
    /// Source address of packets that the host itself sends by this route.
    pub source: Option<IpAddr>,
}

impl Route {
    fn from_message(message: &RouteMessage) -> Self {
        let mut destination = match message.header.address_family {
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let mut route = Self {
            destination: IpNetwork::from(destination),
            via: None,
            device: None,
            first_device: None,
            onlink: message.header.flags.contains(RouteFlags::Onlink),
            protocol: message.header.protocol.into(),
            priority: 0,
            source: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address).unwrap_or(destination),
                RouteAttribute::Gateway(address) => route.via = ip(address),
                // A router whose address is of the other family.
                RouteAttribute::Via(RouteVia::Inet6(address)) => route.via = Some((*address).into()),
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Oif(index) => route.device = Some(*index),
                RouteAttribute::MultiPath(ways) => route.first_device = first_device(ways),
                RouteAttribute::Priority(priority) => route.priority = *priority,
                _ => {}
            }
        }
        let len = message.header.destination_prefix_length;
        route.destination = IpNetwork::new(destination, len).unwrap_or(route.destination);
        route
    }

    /// The route of a message, if it is a unicast one of the main table.
    pub(super) fn of_main_table(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let is_it = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
        is_it.then(|| Self::from_message(message))
    }

    /// The request that adds or removes this route, in the main table.
    pub(super) fn message(&self) -> RouteMessage {
        let scope = if self.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let mut message = message_to(self.destination);
        message.header.protocol = self.protocol.into();
        message.header.scope = scope;
        message.attributes.extend(self.via.map(|via| RouteAttribute::Gateway(via.into())));
        message.attributes.extend(self.device.map(RouteAttribute::Oif));
        if self.onlink {
            message.header.flags.insert(RouteFlags::Onlink);
        }
        message
    }

    /// Whether nobody chose its metric: the kernel stores `IP6_RT_PRIO_USER` for none with IPv6
    /// (`ip6_route_info_create`).
    pub(super) fn is_without_metric(&self) -> bool {
        let unstated = match Family::from(self.destination) {
            Family::V4 => 0,
            Family::V6 => 1024,
        };
        [0, unstated].contains(&self.priority)
    }
}

impl Route {
    /// The request that adds or removes this route by the next hop of that address, which has gateway and device.
    pub(super) fn message_by(&self, gateway: Ipv4Addr) -> RouteMessage {
        let route = Self { via: None, device: None, onlink: false, ..self.clone() };
        let mut message = route.message();
        message.header.scope = RouteScope::Universe;
        message.attributes.push(RouteAttribute::NhId(super::nexthop::id(gateway)));
        message
    }
}

/// Packets of the tunnel to a peer, as far as routing looks at them.
#[derive(Clone, Copy, Debug)]
pub struct TunnelFlow {
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// UDP port of the tunnel.
    pub port: u16,
    /// Interface index of the VRF that they leave by.
    pub vrf: Option<u32>,
}

/// How each of `addresses` is reached, from the calling thread's network namespace. An address without a route is
/// taken to be behind a router.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn hops(addresses: &[IpAddr], underlay: &Underlay) -> Result<Vec<Hop>, Error> {
    let during = |source| Error { operation: "ask for the routes to the peers".to_owned(), source };
    let mut hops = Vec::with_capacity(addresses.len());
    let mut bulk = Bulk::open().map_err(during)?;
    for addresses in addresses.chunks(Bulk::MAX) {
        let first = hops.len();
        hops.resize(first + addresses.len(), Hop::Routed);
        let questions = addresses.iter().map(|address| RouteNetlinkMessage::GetRoute(question(*address)));
        let refused = bulk.ask(questions.map(|question| (question, 0)), |place, answer| {
            if let (RouteNetlinkMessage::NewRoute(route), Some(hop)) = (answer, hops.get_mut(first + place)) {
                *hop = hop_by(&route, underlay);
            }
        });
        for (place, error) in refused.map_err(during)? {
            tracing::debug!(%error, address = ?addresses.get(place), "no route to a peer");
        }
        // Everybody else has a turn.
        tokio::task::yield_now().await;
    }
    Ok(hops)
}

fn hop_by(message: &RouteMessage, underlay: &Underlay) -> Hop {
    let route = Route::from_message(message);
    if route.via.is_none() && route.device == Some(underlay.index) { Hop::Link } else { Hop::Routed }
}

impl Netlink {
    /// The route the host would use to `address`; `None` if there is none.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn route_to(&self, address: IpAddr) -> Result<Option<Route>, Error> {
        self.get_route(question(address), || format!("look the route to {address} up")).await
    }

    /// The main table's default route of `family` with the lowest metric.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn default_route(&self, family: Family) -> Result<Option<Route>, Error> {
        let routes: Vec<Route> = self.main_table(RouteFilter::of(family)).await?;
        let defaults = routes.into_iter().filter(|route| route.destination.prefix() == 0);
        Ok(defaults
            .filter(|route| route.device.or(route.first_device).is_some())
            .min_by_key(|route| route.priority))
    }

    /// The route of packets of the tunnel, as the kernel's own device looks it up; `None` if there is none.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn route_of_tunnel(&self, flow: TunnelFlow) -> Result<Option<Route>, Error> {
        let TunnelFlow { source, destination, port, vrf } = flow;
        let mut message = question(destination.into());
        message.header.source_prefix_length = Family::V4.bits();
        message.attributes.extend([
            RouteAttribute::Source(source.into()),
            RouteAttribute::IpProto(PROTOCOL_UDP),
            RouteAttribute::Dport(port),
        ]);
        message.attributes.extend(vrf.map(RouteAttribute::Oif));
        self.get_route(message, || format!("look the route of the tunnel to {destination} up")).await
    }

    /// The unicast routes of the main table that pass `filter`. The kernel filters.
    pub(super) async fn main_table(&self, filter: RouteFilter) -> Result<Vec<Route>, Error> {
        let listing = self.0.route().get(filter.message()).execute();
        collect(listing, "list the routes", |message| Route::of_main_table(&message)).await
    }

    /// The main table's route to exactly `destination` without a metric.
    pub(super) async fn route_of(&self, destination: IpNetwork) -> Result<Option<Route>, Error> {
        // One look-up instead of a listing, unless something more specific covers the first address.
        let mut message = question(destination.ip());
        message.header.flags.insert(RouteFlags::FibMatch);
        let is_it = |route: &Route| route.destination == destination && route.is_without_metric();
        let found = self.get_route(message, || format!("look the route of {destination} up")).await?;
        match found.filter(is_it) {
            Some(route) => Ok(Some(route)),
            None => Ok(self.main_table(RouteFilter::of(destination.into())).await?.into_iter().find(is_it)),
        }
    }

    /// Adds `route`, or replaces the route to its destination.
    pub(super) async fn add_route(&self, route: &Route, replace: bool) -> Result<(), Error> {
        let request = self.0.route().add(route.message());
        let request = if replace { request.replace() } else { request };
        request.execute().await.during(|| format!("add the route to {}", route.destination))
    }

    /// Removes `route`, and no other one to its destination; its absence is success.
    pub(super) async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let mut message = route.message();
        // The scope that stands for any.
        message.header.scope = RouteScope::NoWhere;
        let deleted = self.0.route().del(message).execute().await;
        absence_is_success(deleted.during(|| format!("remove the route to {}", route.destination)))
    }

    async fn get_route(
        &self,
        message: RouteMessage,
        operation: impl FnOnce() -> String,
    ) -> Result<Option<Route>, Error> {
        let answer = self.0.route().get(message).execute().boxed().try_next().await;
        match answer.during(operation) {
            Ok(answer) => Ok(answer.as_ref().map(Route::from_message)),
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Which routes to list.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteFilter {
    /// Of this family only.
    pub(super) family: Family,
    /// By this interface only.
    pub(super) device: Option<u32>,
    /// With this protocol number only.
    pub(super) protocol: Option<u8>,
}

impl RouteFilter {
    /// All routes of `family`.
    pub(super) const fn of(family: Family) -> Self {
        Self { family, device: None, protocol: None }
    }

    /// The request for such routes.
    pub(super) fn message(self) -> RouteMessage {
        let mut message = empty(self.family);
        message.header.protocol = self.protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from);
        message.attributes.extend(self.device.map(RouteAttribute::Oif));
        message
    }
}

/// A request about unicast routes of the main table.
fn empty(family: Family) -> RouteMessage {
    match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    }
}

/// The same about one to `destination`.
pub(super) fn message_to(destination: IpNetwork) -> RouteMessage {
    let mut message = empty(destination.into());
    message.header.destination_prefix_length = destination.prefix();
    message.attributes.push(RouteAttribute::Destination(destination.ip().into()));
    message
}

fn first_device(ways: &[RouteNextHop]) -> Option<u32> {
    ways.first().map(|way| way.interface_index)
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The request for the route to `address`.
fn question(address: IpAddr) -> RouteMessage {
    let mut message = message_to(address.into());
    strip(&mut message.header);
    message
}

/// Clears the fields that a strictly checked look-up must not have.
fn strip(header: &mut RouteHeader) {
    header.table = RouteHeader::RT_TABLE_UNSPEC;
    header.protocol = RouteProtocol::Unspec;
    header.scope = RouteScope::Universe;
    header.kind = RouteType::Unspec;
}

#[cfg(test)]
mod tests;
