use std::net::Ipv4Addr;

use rstest::rstest;

use super::Hop;
use crate::kernel::namespace::{add_interface, ip, on_host};

#[rstest]
#[case::same_network(Ipv4Addr::new(192, 168, 77, 12), Hop::Link)]
#[case::behind_a_router(Ipv4Addr::new(192, 168, 88, 12), Hop::Routed)]
#[case::routed_to_the_link(Ipv4Addr::new(192, 168, 99, 12), Hop::Link)]
#[case::other_interface(Ipv4Addr::new(172, 16, 0, 12), Hop::Routed)]
#[case::own_address(Ipv4Addr::new(192, 168, 77, 11), Hop::Routed)]
#[case::no_route(Ipv4Addr::new(203, 0, 113, 1), Hop::Routed)]
#[case::forbidden(Ipv4Addr::new(198, 51, 100, 1), Hop::Routed)]
fn hop_to_an_address(#[case] address: Ipv4Addr, #[case] expected: Hop) {
    on_host(async |netlink, underlay| {
        add_interface("eth1", "172.16.0.1/24");
        ip("route add 192.168.88.0/24 via 192.168.77.1");
        ip("route add 192.168.99.0/24 dev eth0");
        ip("route add prohibit 198.51.100.0/24");
        assert_eq!(netlink.hop(address, &underlay).await.unwrap(), expected);
    });
}

#[test]
fn default_route_of_the_lowest_metric() {
    on_host(async |netlink, _| {
        assert_eq!(netlink.default_route().await.unwrap(), None);
        ip("route add default via 192.168.77.1 metric 200");
        ip("route add default via 192.168.77.2 metric 100");
        let found = netlink.default_route().await.unwrap().unwrap();
        assert_eq!((found.via, found.priority), (Some(Ipv4Addr::new(192, 168, 77, 2)), 100));
    });
}
