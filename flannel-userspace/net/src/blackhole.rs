//! A route that drops packets to this host's subnet that no pod has.

use flannel_model::config::cidr::masked;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};

use super::route::{RouteFilter, message_to};
use super::{During, Error, Netlink, ROUTE_PROTOCOL, collect};

/// Any other route to the subnet is preferred, such as that of the bridge. Stock flannel states no metric,
/// and takes the subnet from a bridge that comes up later.
const METRIC: u32 = u32::MAX;

impl Netlink {
    /// Keeps a blackhole route for `subnet`: packets to no pod end here, and do not leave by the default route. Returns
    /// whether it was missing.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn ensure_blackhole(&self, subnet: IpNetwork) -> Result<bool, Error> {
        let added = self.0.route().add(blackhole(subnet)).execute().await;
        match added.during(|| format!("add the blackhole route to {subnet}")) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the blackhole route for `subnet` is there.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn has_blackhole(&self, subnet: IpNetwork) -> Result<bool, Error> {
        let wanted = blackhole(subnet);
        let ours = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::of(subnet.into()) };
        let is_it = |route: RouteMessage| {
            let (wanted_header, header) = (&wanted.header, &route.header);
            let is_it = header.kind == wanted_header.kind
                && header.destination_prefix_length == wanted_header.destination_prefix_length
                && wanted.attributes.iter().all(|attribute| route.attributes.contains(attribute));
            is_it.then_some(())
        };
        let mut request = ours.message();
        request.header.kind = RouteType::BlackHole;
        let listing = self.0.route().get(request).execute();
        let found: Vec<()> = collect(listing, "list the routes", is_it).await?;
        Ok(!found.is_empty())
    }

    /// Removes the blackhole route for `subnet`. Returns whether there was one.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_blackhole(&self, subnet: IpNetwork) -> Result<bool, Error> {
        let removed = self.0.route().del(blackhole(subnet)).execute().await;
        match removed.during(|| format!("remove the blackhole route to {subnet}")) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn blackhole(subnet: IpNetwork) -> RouteMessage {
    let mut message = message_to(masked(subnet));
    message.header.protocol = ROUTE_PROTOCOL.into();
    message.header.kind = RouteType::BlackHole;
    message.header.scope = RouteScope::Universe;
    message.attributes.push(RouteAttribute::Priority(METRIC));
    message
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ipnetwork::IpNetwork;

    use crate::namespace::{add_interface, in_namespace, ip};

    const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 5, 1, 7));

    fn subnet() -> IpNetwork {
        "10.5.1.0/24".parse().unwrap()
    }

    #[test]
    fn kept_and_removed() {
        in_namespace(async |netlink| {
            for expected in [true, false] {
                assert_eq!(netlink.has_blackhole(subnet()).await.unwrap(), !expected);
                assert_eq!(netlink.ensure_blackhole(subnet()).await.unwrap(), expected);
                assert_eq!(ip("route show").trim(), "blackhole 10.5.1.0/24 proto 85 metric 4294967295");
            }
            ip("route flush proto 85");
            assert!(netlink.ensure_blackhole(subnet()).await.unwrap());
            for expected in [true, false] {
                assert_eq!(netlink.remove_blackhole(subnet()).await.unwrap(), expected);
                assert_eq!(ip("route show"), "");
            }
        });
    }

    #[test]
    fn of_ipv6() {
        in_namespace(async |netlink| {
            let subnet = "fd00:10:5:1::/64".parse().unwrap();
            assert!(netlink.ensure_blackhole(subnet).await.unwrap());
            assert!(netlink.has_blackhole(subnet).await.unwrap());
            assert!(!netlink.ensure_blackhole(subnet).await.unwrap());
            assert!(netlink.remove_blackhole(subnet).await.unwrap());
            assert!(!netlink.has_blackhole(subnet).await.unwrap());
        });
    }

    #[test]
    fn nothing_leaves_by_the_default_route() {
        in_namespace(async |netlink| {
            add_interface("eth0", "192.168.77.11/24");
            ip("route add default via 192.168.77.1");
            assert!(netlink.route_to(POD).await.unwrap().is_some());
            netlink.ensure_blackhole(subnet()).await.unwrap();
            let refused = netlink.route_to(POD).await.unwrap_err();
            assert_eq!(refused.errno(), Some(nix::errno::Errno::EINVAL));
        });
    }

    /// Whichever comes first.
    #[test]
    fn the_bridge_is_preferred() {
        in_namespace(async |netlink| {
            netlink.ensure_blackhole(subnet()).await.unwrap();
            add_interface("cni0", "10.5.1.1/24");
            assert!(netlink.route_to(POD).await.unwrap().is_some());
            assert!(netlink.remove_blackhole(subnet()).await.unwrap());
            assert!(netlink.ensure_blackhole(subnet()).await.unwrap());
            assert!(netlink.route_to(POD).await.unwrap().is_some());
            // The user's own route stays.
            netlink.remove_blackhole(subnet()).await.unwrap();
            assert!(netlink.route_to(POD).await.unwrap().is_some());
        });
    }
}
