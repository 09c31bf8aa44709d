use std::net::{IpAddr, Ipv4Addr};

use flannel_model::family::Family;

use super::{Hop, TunnelFlow, hops};
use crate::namespace::{add_interface, ip, on_host};

#[test]
fn hops_to_addresses() {
    let cases = [
        ("same network", Ipv4Addr::new(192, 168, 77, 12), Hop::Link),
        ("behind a router", Ipv4Addr::new(192, 168, 88, 12), Hop::Routed),
        ("routed to the link", Ipv4Addr::new(192, 168, 99, 12), Hop::Link),
        ("other interface", Ipv4Addr::new(172, 16, 0, 12), Hop::Routed),
        ("own address", Ipv4Addr::new(192, 168, 77, 11), Hop::Routed),
        ("no route", Ipv4Addr::new(203, 0, 113, 1), Hop::Routed),
        ("behind a router with an IPv6 address", Ipv4Addr::new(192, 168, 66, 1), Hop::Routed),
        ("forbidden", Ipv4Addr::new(198, 51, 100, 1), Hop::Routed),
    ];
    on_host(async |_, underlay| {
        add_interface("eth1", "172.16.0.1/24");
        ip("route add 192.168.88.0/24 via 192.168.77.1");
        ip("route add 192.168.99.0/24 dev eth0");
        ip("route add 192.168.66.0/24 via inet6 fe80::1 dev eth0");
        ip("route add prohibit 198.51.100.0/24");
        // More than are asked for together.
        let many: Vec<_> = cases.iter().cycle().take(50 * cases.len()).collect();
        let addresses: Vec<IpAddr> = many.iter().map(|(_, address, _)| (*address).into()).collect();
        let hops = hops(&addresses, &underlay).await.unwrap();
        assert_eq!(hops.len(), many.len());
        for (hop, (name, address, expected)) in hops.into_iter().zip(many) {
            assert_eq!(hop, *expected, "{name}: {address}");
        }
    });
}

#[test]
fn the_route_of_the_tunnel_is_found_by_all_that_rules_look_at() {
    on_host(async |netlink, _| {
        add_interface("eth1", "172.16.0.1/24");
        ip("route add default via 172.16.0.254 table 100");
        let flow = TunnelFlow {
            source: Ipv4Addr::new(192, 168, 77, 11),
            destination: Ipv4Addr::new(192, 168, 77, 12),
            port: 8472,
            vrf: None,
        };
        let device = async || netlink.route_of_tunnel(flow).await.unwrap().unwrap().device;
        let direct = device().await;
        for rule in ["ipproto udp dport 8472", "from 192.168.77.11", "to 192.168.77.12 iif lo"] {
            ip(&format!("rule add {rule} lookup 100"));
            assert_ne!(device().await, direct, "{rule}");
            ip(&format!("rule del {rule} lookup 100"));
            assert_eq!(device().await, direct, "{rule}");
        }
    });
}

#[test]
fn default_route_of_the_lowest_metric() {
    on_host(async |netlink, _| {
        assert_eq!(netlink.default_route(Family::V4).await.unwrap(), None);
        ip("route add default via 192.168.77.1 metric 200");
        ip("route add default via 192.168.77.2 metric 100");
        let found = netlink.default_route(Family::V4).await.unwrap().unwrap();
        assert_eq!((found.via, found.priority), (Some(Ipv4Addr::new(192, 168, 77, 2).into()), 100));
    });
}
