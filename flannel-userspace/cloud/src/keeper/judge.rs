//! What a route table needs, and what it does not.

use flannel_model::config::cidr::{is_subnet_of, overlap};
use flannel_model::family::{Family, Subnets};
use ipnetwork::IpNetwork;

use crate::{CloudError, Route, Table, Target, Trouble, View};

/// What a table needs to lead to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need<'a> {
    Nothing,
    Put,
    Replace(&'a Route),
}

/// What `table` needs to send what is for `subnet` to this host.
///
/// # Errors
/// A route that is no host's is in the way.
pub(super) fn need(table: &Table, subnet: IpNetwork) -> Result<Need<'_>, CloudError> {
    let Some(route) = table.routes.iter().find(|route| route.destination == subnet) else {
        return Ok(Need::Put);
    };
    match &route.target {
        Target::Own if !route.is_dead => Ok(Need::Nothing),
        Target::Own => Ok(Need::Replace(route)),
        Target::Host(_) if route.is_flannels => Ok(Need::Replace(route)),
        Target::Host(target) | Target::Other(target) => Err(CloudError::new(
            Trouble::Refused,
            "own route",
            format!(
                "{} has a route for {subnet} to {target}, which flanneld has not made and does not replace: remove it, or \
                 choose another Network",
                table.id
            ),
        )),
    }
}

/// Refuses networks that the cloud delivers by itself, whatever its route tables say.
pub(super) fn unreachable_ranges(view: &View, networks: &Subnets) -> Result<(), CloudError> {
    for network in networks.iter() {
        if let Some(range) = view.ranges.iter().find(|range| overlap(**range, network)) {
            return Err(CloudError::new(
                Trouble::Refused,
                "own route",
                format!(
                    "Network {network} overlaps {range}, which is a range of {} itself: the cloud delivers such addresses \
                     by itself and takes no routes for them; choose a Network outside of {range}",
                    view.place
                ),
            ));
        }
    }
    Ok(())
}

/// The routes to hosts of this network that may be useless, unless their subnets are leased: to hosts that are gone, and
/// to this one for subnets that it does not lease.
pub(super) fn removable<'a>(
    view: &'a View,
    networks: &Subnets,
    own: &Subnets,
) -> impl Iterator<Item = (&'a Table, &'a Route)> {
    let (networks, own) = (*networks, *own);
    let is_removable = move |route: &Route| {
        let family = Family::from(route.destination);
        let (Some(network), Some(subnet)) = (networks.get(family), own.get(family)) else { return false };
        let is_of_a_host = is_subnet_of(route.destination, network)
            && route.destination.prefix() == subnet.prefix()
            && route.destination != subnet;
        let leads_nowhere = match &route.target {
            Target::Own => true,
            Target::Host(_) => route.is_dead,
            Target::Other(_) => false,
        };
        is_of_a_host && route.is_flannels && leads_nowhere
    };
    let routes = |table: &'a Table| table.routes.iter().map(move |route| (table, route));
    view.tables.iter().flat_map(routes).filter(move |(_, route)| is_removable(route))
}
