//! What the API answers of routes, in the words in which they are kept.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::name::{Cluster, stock_route_name};
use super::resources::{self, NewRoute, path_of};
use crate::{CloudError, Route, Target, Trouble};

/// As stock flannel has it.
const PRIORITY: u32 = 1000;

/// What tells the routes of this host and of its cluster among all of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Eye {
    /// The cluster that the host belongs to.
    pub(super) cluster: Cluster,
    /// The VPC network: its project and its path there.
    pub(super) vpc: String,
    /// The instance: its project and its path there.
    pub(super) instance: String,
    /// The primary address of its interface.
    pub(super) address: Ipv4Addr,
}

impl Eye {
    /// The ranges of the VPC network's subnetworks. The routes to them have the network itself as their next hop.
    pub(super) fn ranges(&self, routes: &[resources::Route]) -> Vec<IpNetwork> {
        let own = routes.iter().filter(|route| self.is_in_vpc(route) && route.next_hop_network.is_some());
        own.filter_map(|route| route.dest_range.parse().ok()).collect()
    }

    /// Those that somebody has made and that count beside one of flannel's. Of several to one destination, each gets a part of
    /// the packets: those of flannel to elsewhere come first, to be replaced, and then those of others, to be told.
    pub(super) fn routes(&self, routes: &[resources::Route]) -> Vec<Route> {
        let counts = |route: &&resources::Route| {
            self.is_in_vpc(route) && route.is_static() && route.priority <= PRIORITY
        };
        let mut routes: Vec<Route> =
            routes.iter().filter(counts).filter_map(|route| self.route(route)).collect();
        routes.sort_by_key(|route| (route.target == Target::Own, !route.is_flannels));
        routes
    }

    /// The one that this host needs.
    pub(super) fn new_route(&self, subnet: IpNetwork) -> Result<NewRoute, CloudError> {
        let IpNetwork::V4(subnet) = subnet else {
            let message = format!("{subnet} is of IPv6, which the backend gce does not serve");
            return Err(CloudError::new(Trouble::Refused, "routes.insert", message));
        };
        Ok(NewRoute {
            name: self.cluster.route_name(subnet),
            dest_range: subnet,
            network: self.vpc.clone(),
            next_hop_ip: self.address,
            priority: PRIORITY,
            tags: [],
            description: format!("flannel: pods of {}", self.instance),
        })
    }

    fn is_in_vpc(&self, route: &resources::Route) -> bool {
        path_of(&route.network) == Some(&self.vpc)
    }

    fn route(&self, route: &resources::Route) -> Option<Route> {
        let destination: IpNetwork = route.dest_range.parse().ok()?;
        Some(Route {
            destination,
            target: self.target(route),
            is_dead: route.leads_nowhere(),
            is_flannels: matches!(destination, IpNetwork::V4(subnet) if self.is_of_flannel(route, subnet)),
            id: Some(route.id.clone()),
        })
    }

    /// A route for some instances only is none to this host, wherever it leads.
    fn target(&self, route: &resources::Route) -> Target {
        let instance = route.next_hop_instance.as_deref().and_then(path_of);
        let address: Option<IpAddr> = route.next_hop_ip.as_deref().and_then(|address| address.parse().ok());
        match (instance, address) {
            _ if !route.tags.is_empty() => Target::Other(format!("{} for tagged instances", route.name)),
            (Some(instance), _) if instance == self.instance => Target::Own,
            (_, Some(address)) if address == self.address => Target::Own,
            (Some(instance), _) => Target::Host(instance.to_owned()),
            (_, Some(address)) => Target::Host(address.to_string()),
            (None, None) => Target::Other(route.name.clone()),
        }
    }

    /// Whether flannel of this cluster has made it. What stock flannel has made says nothing of the cluster; that it is
    /// in the same VPC network, and for a subnet of ours, is for others to see.
    fn is_of_flannel(&self, route: &resources::Route, subnet: Ipv4Network) -> bool {
        self.cluster.route_name(subnet) == route.name || stock_route_name(subnet) == route.name
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Eye;
    use crate::Target;
    use crate::gce::name::{Cluster, stock_route_name};
    use crate::gce::resources::{Route, Warning};

    const VPC: &str = "projects/shop/global/networks/default";
    const URL: &str = "https://www.googleapis.com/compute/v1/";
    const OWN: &str = "projects/shop/zones/z/instances/own";
    const SUBNET: &str = "10.5.1.0/24";

    fn eye() -> Eye {
        let cluster = Cluster::of(VPC, "/coreos.com/network 10.5.0.0/16");
        Eye { cluster, vpc: VPC.to_owned(), instance: OWN.to_owned(), address: [10, 132, 0, 7].into() }
    }

    fn our_name() -> String {
        eye().cluster.route_name(SUBNET.parse().unwrap())
    }

    fn stock_name() -> String {
        stock_route_name(SUBNET.parse().unwrap())
    }

    /// A route in the VPC network.
    fn route(name: String) -> Route {
        Route {
            id: "17".to_owned(),
            name,
            dest_range: SUBNET.to_owned(),
            network: format!("{URL}{VPC}"),
            priority: 1000,
            ..Route::default()
        }
    }

    fn to_address(route: Route, address: &str) -> Route {
        Route { next_hop_ip: Some(address.to_owned()), ..route }
    }

    fn to_instance(route: Route, instance: &str) -> Route {
        Route { next_hop_instance: Some(format!("{URL}{instance}")), ..route }
    }

    #[rstest]
    #[case::of_ours(to_address(route(our_name()), "10.132.0.7"), Target::Own, true)]
    #[case::of_stock(to_instance(route(stock_name()), OWN), Target::Own, true)]
    #[case::of_somebody(to_address(route("by-hand".to_owned()), "10.132.0.7"), Target::Own, false)]
    #[case::elsewhere(
        to_address(route(our_name()), "10.132.0.9"),
        Target::Host("10.132.0.9".to_owned()),
        true
    )]
    #[case::of_stock_elsewhere(
        to_instance(route(stock_name()), "projects/shop/zones/z/instances/x"),
        Target::Host("projects/shop/zones/z/instances/x".to_owned()),
        true
    )]
    #[case::of_another_cluster(
        to_address(route(Cluster::of(VPC, "/second 10.5.0.0/16").route_name(SUBNET.parse().unwrap())), "10.132.0.9"),
        Target::Host("10.132.0.9".to_owned()),
        false
    )]
    #[case::to_a_gateway(route("default".to_owned()), Target::Other("default".to_owned()), false)]
    #[case::for_some_instances(
        Route { tags: vec!["web".to_owned()], ..to_address(route(our_name()), "10.132.0.7") },
        Target::Other(format!("{} for tagged instances", our_name())),
        true
    )]
    fn whose_a_route_is(#[case] route: Route, #[case] target: Target, #[case] is_flannels: bool) {
        let [seen] = &eye().routes(&[route])[..] else { panic!("one route is one route") };
        assert_eq!((&seen.target, seen.is_flannels), (&target, is_flannels));
        assert_eq!((seen.destination, seen.is_dead), (SUBNET.parse().unwrap(), false));
        assert_eq!(seen.id.as_deref(), Some("17"), "a later route of the name has another number");
    }

    #[rstest]
    #[case("NEXT_HOP_NOT_RUNNING", true)]
    #[case("NEXT_HOP_INSTANCE_NOT_FOUND", true)]
    #[case("NEXT_HOP_ADDRESS_NOT_ASSIGNED", true)]
    #[case("DEPRECATED_RESOURCE_USED", false)]
    fn what_leads_to_no_instance_is_dead(#[case] code: &str, #[case] is_dead: bool) {
        let warnings = vec![Warning { code: code.to_owned(), message: String::new() }];
        let routes = eye().routes(&[Route { warnings, ..to_address(route(our_name()), "10.132.0.9") }]);
        assert_eq!(routes[0].is_dead, is_dead);
    }

    #[test]
    fn of_several_those_to_elsewhere_come_first() {
        let routes = [
            to_address(route("by-hand".to_owned()), "10.132.0.8"),
            to_instance(route(stock_name()), OWN),
            to_address(route(our_name()), "10.132.0.9"),
            Route { priority: 1001, ..to_address(route("behind".to_owned()), "10.132.0.10") },
        ];
        let seen = eye().routes(&routes);
        let targets: Vec<&Target> = seen.iter().map(|route| &route.target).collect();
        let host = |address: &str| Target::Host(address.to_owned());
        assert_eq!(targets, [&host("10.132.0.9"), &host("10.132.0.8"), &Target::Own]);
    }

    #[test]
    fn a_new_route_leads_to_the_address() {
        let route = eye().new_route(SUBNET.parse().unwrap()).unwrap();
        assert_eq!((route.name, route.next_hop_ip), (our_name(), [10, 132, 0, 7].into()));
        assert_eq!((route.network.as_str(), route.priority), (VPC, 1000));
        assert!(eye().new_route("fd00::/64".parse().unwrap()).is_err());
    }

    #[test]
    fn another_vpc_network_is_not_looked_at() {
        let network = format!("{URL}projects/shop/global/networks/second");
        assert_eq!(eye().routes(&[Route { network, ..to_address(route(stock_name()), "10.132.0.7") }]), []);
    }

    #[test]
    fn subnetworks_are_ranges_and_no_routes() {
        let subnetwork = |network: &str, range: &str| Route {
            network: format!("{URL}{network}"),
            next_hop_network: Some(format!("{URL}{network}")),
            dest_range: range.to_owned(),
            ..route("default-route-1".to_owned())
        };
        let routes = [
            subnetwork(VPC, "10.132.0.0/20"),
            subnetwork("projects/shop/global/networks/second", "10.5.0.0/16"),
            subnetwork(VPC, "no range"),
        ];
        assert_eq!(eye().ranges(&routes), ["10.132.0.0/20".parse().unwrap()]);
        assert_eq!(eye().routes(&routes), []);
    }
}
