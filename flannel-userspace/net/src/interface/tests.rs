use std::net::Ipv4Addr;

use flannel_model::config::interface::InterfaceOptions;
use rstest::rstest;

use super::{InterfaceError, choose, follow};
use crate::Netlink;
use crate::namespace::{add_interface, in_namespace, ip};

/// eth0 with the default route, eth1 with two addresses, `dark` down, `bare` without an address.
fn on_a_host_with_many_interfaces(test: impl AsyncFnOnce(Netlink) + Send) {
    in_namespace(async |netlink| {
        add_interface("eth0", "192.168.77.11/24");
        add_interface("eth1", "172.16.0.1/24");
        ip("address add 172.16.9.1/24 dev eth1");
        ip("address add 192.0.2.9/32 dev lo");
        add_interface("dark", "172.20.0.1/24");
        ip("link set dark down");
        ip("link add bare type bridge");
        ip("link set bare up");
        ip("route add default via 192.168.77.1");
        test(netlink).await;
    });
}

fn options(arguments: &[&str]) -> InterfaceOptions {
    let mut options = InterfaceOptions::default();
    for argument in arguments {
        match argument.split_once('=').unwrap() {
            ("iface", value) => options.iface.push(value.to_owned()),
            ("iface-regex", value) => options.iface_regex.push(value.to_owned()),
            ("iface-can-reach", value) => options.iface_can_reach = Some(value.parse().unwrap()),
            ("public-ip", value) => options.public.v4 = Some(value.parse().unwrap()),
            (name, _) => panic!("{name}"),
        }
    }
    options
}

#[rstest]
#[case::default_route(&[], "eth0", "192.168.77.11", "192.168.77.11")]
#[case::name(&["iface=eth1"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::address(&["iface=172.16.9.1"], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::first_that_is_there(&["iface=eth9", "iface=eth1", "iface=eth0"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::first_that_is_up(&["iface=dark", "iface=bare", "iface=eth1"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::iface_before_regex(&["iface-regex=eth0", "iface=eth1"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::regex_of_address(&[r"iface-regex=^172\.16\.9\."], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::regex_of_name(&["iface-regex=eth1$"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::regex_addresses_before_names(&[r"iface-regex=eth0|172\.16\.0"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::regex_skips_what_is_down(&[r"iface-regex=dark|eth1"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::regex_never_the_loopback(&[r"iface-regex=\.1$|^127"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::second_regex(&["iface-regex=nothing", "iface-regex=eth1"], "eth1", "172.16.0.1", "172.16.0.1")]
#[case::can_reach(&["iface-can-reach=172.16.9.77"], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::can_reach_by_default(&["iface-can-reach=203.0.113.1"], "eth0", "192.168.77.11", "192.168.77.11")]
#[case::can_reach_itself(&["iface-can-reach=172.16.9.1"], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::can_reach_last(
    &["iface-can-reach=172.16.9.77", "iface-regex=eth0"], "eth0", "192.168.77.11", "192.168.77.11"
)]
#[case::public_ip_alone(&["public-ip=172.16.9.1"], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::public_ip_of_a_translation(
    &["iface=eth1", "public-ip=198.51.100.7"], "eth1", "172.16.0.1", "198.51.100.7"
)]
#[case::own_public_ip_is_the_source(&["iface=eth1", "public-ip=172.16.9.1"], "eth1", "172.16.9.1", "172.16.9.1")]
#[case::own_public_ip_of_another_interface(
    &["iface=eth0", "public-ip=172.16.9.1"], "eth0", "172.16.9.1", "172.16.9.1"
)]
#[case::own_public_ip_of_the_loopback(&["public-ip=192.0.2.9"], "eth0", "192.0.2.9", "192.0.2.9")]
fn chosen(
    #[case] arguments: &[&str],
    #[case] name: &str,
    #[case] address: Ipv4Addr,
    #[case] public_ip: Ipv4Addr,
) {
    on_a_host_with_many_interfaces(async |netlink| {
        let underlay = choose(&netlink, &options(arguments)).await.unwrap();
        assert_eq!(
            (underlay.name.as_str(), underlay.addresses, underlay.public),
            (name, address.into(), public_ip.into())
        );
        let link = netlink.link(name).await.unwrap().unwrap();
        assert_eq!((underlay.index, underlay.mtu, underlay.mac), (link.index, 1500, link.mac));
    });
}

#[rstest]
#[case::no_such_name(&["iface=eth9"], "no interface has the name eth9; this host has")]
#[case::no_such_address(&["iface=10.9.9.9"], "no interface has the address 10.9.9.9; this host has")]
#[case::present_are_named(&["iface=eth9"], "eth1 (172.16.0.1, 172.16.9.1)")]
#[case::down(&["iface=dark"], "interface dark is down: bring it up with `ip link set dark up`")]
#[case::down_by_address(&["iface=172.20.0.1"], "interface dark is down")]
#[case::down_by_regex(&["iface-regex=^dark$"], "interface dark is down")]
#[case::no_address(&["iface=bare"], "interface bare has no IPv4 address")]
#[case::no_match(&["iface-regex=^wlan"], "no interface's address or name matches ^wlan; this host has")]
#[case::bad_regex(&["iface-regex=eth("], "--iface-regex=eth( is no regular expression")]
#[case::public_ip_elsewhere(&["public-ip=198.51.100.7"], "no interface has the address 198.51.100.7")]
#[case::cannot_reach_ipv6(&["iface-can-reach=2001:db8::1"], "no route leads to 2001:db8::1")]
#[case::all_are_told(&["iface=eth9", "iface=dark"], "eth9; this host has")]
#[case::all_are_told_in_order(&["iface=eth9", "iface=dark"], "; interface dark is down")]
fn refused(#[case] arguments: &[&str], #[case] message: &str) {
    on_a_host_with_many_interfaces(async |netlink| {
        let error = choose(&netlink, &options(arguments)).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    });
}

#[test]
fn the_loopback_is_no_underlay() {
    in_namespace(async |netlink| {
        let error = choose(&netlink, &options(&["iface=lo"])).await.unwrap_err().to_string();
        assert!(error.contains("interface lo has no IPv4 address"), "{error}");
    });
}

#[test]
fn no_default_route_asks_for_a_choice() {
    in_namespace(async |netlink| {
        add_interface("eth0", "192.168.77.11/24");
        let error = choose(&netlink, &InterfaceOptions::default()).await.unwrap_err();
        assert!(matches!(error, InterfaceError::NoDefaultRoute), "{error}");
    });
}

#[test]
fn global_addresses_come_before_link_local_and_permanent_before_leased() {
    in_namespace(async |netlink| {
        add_interface("eth0", "169.254.7.7/16 scope link");
        ip("address add 192.168.78.11/24 dev eth0 valid_lft 600 preferred_lft 600");
        ip("address add 192.168.79.11/24 dev eth0 valid_lft 600 preferred_lft 0");
        ip("address add 192.168.77.11/24 dev eth0");
        let underlay = choose(&netlink, &options(&["iface=eth0"])).await.unwrap();
        assert_eq!(underlay.addresses, Ipv4Addr::new(192, 168, 77, 11).into());
        ip("address delete 192.168.77.11/24 dev eth0");
        let underlay = choose(&netlink, &options(&["iface=eth0"])).await.unwrap();
        assert_eq!(underlay.addresses, Ipv4Addr::new(192, 168, 78, 11).into());
    });
}

#[test]
fn networks_are_those_of_every_interface_but_flannels() {
    on_a_host_with_many_interfaces(async |netlink| {
        ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 8472");
        ip("address add 10.5.18.0/24 dev flannel.1");
        ip("address add 10.99.0.1/32 dev eth0");
        let networks = choose(&netlink, &InterfaceOptions::default()).await.unwrap().networks;
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(
            networks,
            ["127.0.0.0/8", "172.16.0.0/24", "172.16.9.0/24", "172.20.0.0/24", "192.168.77.0/24"]
        );
    });
}

#[test]
fn a_default_route_can_have_several_next_hops() {
    on_a_host_with_many_interfaces(async |netlink| {
        ip("route replace default nexthop via 172.16.0.254 dev eth1 nexthop via 192.168.77.1 dev eth0");
        assert_eq!(choose(&netlink, &InterfaceOptions::default()).await.unwrap().name, "eth1");
    });
}

#[test]
fn an_announced_address_is_the_source_for_as_long_as_the_host_has_it() {
    on_a_host_with_many_interfaces(async |netlink| {
        let options = options(&["iface=eth0", "public-ip=198.51.100.7"]);
        let source = async |before| {
            let underlay = follow(&netlink, &options, before).await.unwrap();
            assert_eq!(
                (underlay.name.as_str(), underlay.public.to_string()),
                ("eth0", "198.51.100.7".to_owned())
            );
            underlay
        };
        let translated = choose(&netlink, &options).await.unwrap();
        assert_eq!(translated.addresses.to_string(), "192.168.77.11");
        ip("address add 198.51.100.7/32 dev lo");
        let own = source(&translated).await;
        assert_eq!(own.addresses.to_string(), "198.51.100.7");
        assert_eq!(source(&own).await.addresses.to_string(), "198.51.100.7");
        ip("address del 198.51.100.7/32 dev lo");
        assert_eq!(source(&own).await.addresses.to_string(), "192.168.77.11");
    });
}

#[test]
fn an_interface_that_was_renumbered_stays_though_the_default_route_is_gone() {
    on_a_host_with_many_interfaces(async |netlink| {
        let options = InterfaceOptions::default();
        let before = choose(&netlink, &options).await.unwrap();
        ip("address del 192.168.77.11/24 dev eth0");
        let error = follow(&netlink, &options, &before).await.unwrap_err();
        assert!(matches!(error, InterfaceError::NoAddress(name) if name == "eth0"));
        ip("address add 192.168.77.41/24 dev eth0");
        let after = follow(&netlink, &options, &before).await.unwrap();
        assert_eq!((after.name.as_str(), after.addresses.to_string().as_str()), ("eth0", "192.168.77.41"));
        ip("route add default via 172.16.0.254");
        assert_eq!(
            follow(&netlink, &options, &before).await.unwrap().name,
            "eth1",
            "the route tells otherwise"
        );
    });
}
