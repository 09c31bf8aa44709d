//! Which leases become peers, whichever others there are.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::cidr::masked;
use flannel_model::family::PerFamily;
use flannel_model::lease::Event;
use ipnetwork::IpNetwork;
use rstest::rstest;

use super::{added, delete, in_network, junk, peer, peers, put, refused, site, vxlan};
use crate::peers::{Diff, FamilySite, PeerTable, Refusal, Site};

const MAC: &str = "fa:36:2c:5b:b0:c7";

#[rstest]
#[case::vxlan(
    Kind::Vxlan,
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"}}"#,
    MAC
)]
#[case::vxlan_of_v0_7_without_vni(
    Kind::Vxlan,
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan","BackendData":{"VtepMAC":"fa:36:2c:5b:b0:c7"}}"#,
    MAC
)]
#[case::dual_stack(
    Kind::Vxlan,
    "10.5.24.0-24&fd00:10:5:4a::-64",
    r#"{"PublicIP":"192.168.77.12","PublicIPv6":"fd77::11","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"},"BackendV6Data":{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c8"}}"#,
    MAC
)]
#[case::names_in_other_case(
    Kind::Vxlan,
    "10.5.24.0-24",
    r#"{"publicip":"192.168.77.12","BACKENDTYPE":"vxlan","backenddata":{"vni":1,"vtepmac":"FA:36:2C:5B:B0:C7"}}"#,
    MAC
)]
#[case::host_gw(
    Kind::HostGw,
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"host-gw"}"#,
    ""
)]
#[case::udp(Kind::Udp, "10.5.24.0-24", r#"{"PublicIP":"192.168.77.12","PublicIPv6":null}"#, "")]
#[case::udp_that_says_so(
    Kind::Udp,
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"udp"}"#,
    ""
)]
#[case::alloc(Kind::Alloc, "10.5.24.0-24", r#"{"PublicIP":"192.168.77.12","PublicIPv6":null}"#, "")]
fn accepted_bytes(#[case] kind: Kind, #[case] key: &str, #[case] value: &str, #[case] mac: &str) {
    let mut table = PeerTable::new(site(kind));
    let mut expected = peer("10.5.24.0/24", "192.168.77.12", mac);
    expected.announced.vni = expected.announced.vni.filter(|_| value.to_lowercase().contains("vni"));
    assert_eq!(table.apply_event(&put(key, value, 5)), added(expected));
    assert_eq!((peers(&table), table.refusals()), (vec![expected], 0));
}

#[rstest]
#[case::host_bits(
    "10.5.24.7-24",
    vxlan("192.168.77.12", MAC),
    "host_bits",
    "10.5.24.7/24 has host bits: the subnet would be 10.5.24.0/24"
)]
#[case::outside_network(
    "10.6.24.0-24",
    vxlan("192.168.77.12", MAC),
    "outside_network",
    "10.6.24.0/24 is outside the network 10.5.0.0/16"
)]
#[case::everything("0.0.0.0-0", vxlan("192.168.77.12", MAC), "outside_network", "0.0.0.0-0 names no subnet")]
#[case::default_route_in_halves(
    "128.0.0.0-1",
    vxlan("192.168.77.12", MAC),
    "outside_network",
    "128.0.0.0/1 is outside"
)]
#[case::ipv6_only(
    "0.0.0.0-0&fd00::-64",
    vxlan("192.168.77.12", MAC),
    "outside_network",
    "0.0.0.0-0&fd00::-64 names no subnet"
)]
#[case::the_whole_network(
    "10.5.0.0-16",
    vxlan("192.168.77.12", MAC),
    "subnet_length",
    "which are /24 (SubnetLen)"
)]
#[case::too_small(
    "10.5.24.0-25",
    vxlan("192.168.77.12", MAC),
    "subnet_length",
    "10.5.24.0/25 is not as long"
)]
#[case::own_subnet_under_a_key_of_dual_stack(
    "10.5.1.0-24&fd00::-64",
    vxlan("192.168.77.12", MAC),
    "own_subnet",
    "10.5.1.0/24 overlaps this host's own subnet"
)]
#[case::address_zero(
    "10.5.24.0-24",
    vxlan("0.0.0.0", MAC),
    "no_host_address",
    "PublicIP 0.0.0.0 is no host's"
)]
#[case::this_network("10.5.24.0-24", vxlan("0.0.0.9", MAC), "no_host_address", "0.0.0.9")]
#[case::loopback("10.5.24.0-24", vxlan("127.0.0.1", MAC), "no_host_address", "127.0.0.1")]
#[case::multicast("10.5.24.0-24", vxlan("224.0.0.1", MAC), "no_host_address", "224.0.0.1")]
#[case::broadcast("10.5.24.0-24", vxlan("255.255.255.255", MAC), "no_host_address", "255.255.255.255")]
#[case::broadcast_of_the_link(
    "10.5.24.0-24",
    vxlan("192.168.77.255", MAC),
    "no_host_address",
    "192.168.77.255"
)]
#[case::own_address(
    "10.5.24.0-24",
    vxlan("192.168.77.11", MAC),
    "own_address",
    "PublicIP 192.168.77.11 is this host's own address"
)]
#[case::address_in_its_own_subnet(
    "10.5.24.0-24",
    vxlan("10.5.24.9", MAC),
    "covers_peer",
    "10.5.24.0/24 covers 10.5.24.9, the PublicIP of a peer"
)]
#[case::address_in_this_hosts_subnet(
    "10.5.24.0-24",
    vxlan("10.5.1.9", MAC),
    "covers_peer",
    "10.5.1.0/24 covers 10.5.1.9"
)]
#[case::other_backend(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"host-gw"}"#.to_owned(),
    "backend_type",
    "BackendType host-gw is not this network's, vxlan"
)]
#[case::no_backend(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12"}"#.to_owned(),
    "backend_type",
    "BackendType none is not this network's, vxlan"
)]
#[case::no_data(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan"}"#.to_owned(),
    "vtep_mac",
    "BackendData names no VtepMAC that can be one interface's: there is none"
)]
#[case::data_is_a_text(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan","BackendData":"fa:36:2c:5b:b0:c7"}"#.to_owned(),
    "vtep_mac",
    "there is none"
)]
#[case::mac_is_no_mac("10.5.24.0-24", vxlan("192.168.77.12", "x"), "vtep_mac", r#""x""#)]
#[case::mac_zero(
    "10.5.24.0-24",
    vxlan("192.168.77.12", "00:00:00:00:00:00"),
    "vtep_mac",
    "00:00:00:00:00:00"
)]
#[case::mac_of_a_group("10.5.24.0-24", vxlan("192.168.77.12", "01:00:5e:00:00:01"), "vtep_mac", "01:00:5e")]
#[case::mac_broadcast("10.5.24.0-24", vxlan("192.168.77.12", "ff:ff:ff:ff:ff:ff"), "vtep_mac", "ff:ff:ff")]
#[case::own_mac(
    "10.5.24.0-24",
    vxlan("192.168.77.12", "02:00:00:00:00:11"),
    "vtep_mac_taken",
    "VtepMAC 02:00:00:00:00:11 is that of another host"
)]
#[case::other_vni(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan","BackendData":{"VNI":2,"VtepMAC":"fa:36:2c:5b:b0:c7"}}"#.to_owned(),
    "vni",
    "BackendData says VNI 2, this network's is 1"
)]
#[case::vni_is_a_text(
    "10.5.24.0-24",
    r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan","BackendData":{"VNI":"1","VtepMAC":"fa:36:2c:5b:b0:c7"}}"#.to_owned(),
    "vni",
    r#"VNI "1""#
)]
fn refusal(#[case] key: &str, #[case] value: String, #[case] label: &str, #[case] text: &str) {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    assert_eq!(table.apply_event(&put(key, &value, 5)), Diff::default());
    assert_eq!(refused(&table), [(key.to_owned(), label)]);
    let reason = table.refused().next().unwrap().1.to_string();
    assert!(reason.contains(text), "{reason}");
    assert_eq!((peers(&table), table.refusals()), (Vec::new(), 1));
}

#[rstest]
#[case::subnet("10.5.24.0-24")]
#[case::junk("hello/world")]
fn unreadable_key_or_value_is_refused_with_its_reason(#[case] key: &str) {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    assert_eq!(table.apply_event(&Event::Rejected(junk(key, 5))), Diff::default());
    assert_eq!(refused(&table), [(key.to_owned(), "unreadable")]);
    assert_eq!(table.refused().next().unwrap().1.to_string(), "not a JSON object");
}

#[rstest]
#[case::host_gw_among_udp(Kind::Udp, r#"{"PublicIP":"192.168.77.12","BackendType":"host-gw"}"#)]
#[case::vxlan_among_host_gw(Kind::HostGw, r#"{"PublicIP":"192.168.77.12","BackendType":"vxlan"}"#)]
#[case::udp_among_host_gw(Kind::HostGw, r#"{"PublicIP":"192.168.77.12"}"#)]
#[case::unknown_among_alloc(Kind::Alloc, r#"{"PublicIP":"192.168.77.12","BackendType":"wireguard"}"#)]
fn host_of_another_backend_is_refused(#[case] kind: Kind, #[case] value: &str) {
    let mut table = PeerTable::new(site(kind));
    assert_eq!(table.apply_event(&put("10.5.24.0-24", value, 5)), Diff::default());
    assert_eq!(refused(&table), [("10.5.24.0-24".to_owned(), "backend_type")]);
}

/// The paper's network, with hosts whose own addresses are a part of it.
fn site_with_the_underlay_inside() -> Site {
    Site {
        addresses: vec!["10.1.0.11".parse().unwrap()],
        connected: vec!["10.1.0.0/16".parse().unwrap()],
        reserved: vec!["10.30.0.1".parse().unwrap()],
        ..in_network(site(Kind::Vxlan), "10.0.0.0/8", "10.10.0.0/20")
    }
}

#[rstest]
#[case::a_part_of_the_link("10.1.16.0-20", Some("connected_network"))]
#[case::own_address_among_it("10.1.0.0-20", Some("connected_network"))]
#[case::around_etcd("10.30.0.0-20", Some("reserved_address"))]
#[case::next_to_the_link("10.2.0.0-20", None)]
#[case::elsewhere("10.99.0.0-20", None)]
fn network_around_the_underlay(#[case] key: &str, #[case] label: Option<&'static str>) {
    let mut table = PeerTable::new(site_with_the_underlay_inside());
    table.apply_event(&put(key, &vxlan("10.1.0.12", MAC), 5));
    let labels: Vec<_> = refused(&table).into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, Vec::from_iter(label));
    assert_eq!(peers(&table).len(), usize::from(label.is_none()));
}

/// The routes to peers are longer. Docker's own network is 172.17.0.0/16 until it is given a subnet.
#[rstest]
#[case::larger("10.0.0.0/8")]
#[case::as_large("10.244.0.0/16")]
fn connected_network_around_the_network_is_no_obstacle(#[case] connected: &str) {
    let site = Site {
        addresses: vec!["10.0.0.11".parse().unwrap()],
        connected: vec![connected.parse().unwrap()],
        ..in_network(site(Kind::Vxlan), "10.244.0.0/16", "10.244.1.0/24")
    };
    let mut table = PeerTable::new(site);
    let expected = peer("10.244.2.0/24", "10.0.0.12", MAC);
    assert_eq!(table.apply_event(&put("10.244.2.0-24", &vxlan("10.0.0.12", MAC), 5)), added(expected));
}

#[test]
fn subnet_around_an_address_that_stands_alone_on_its_interface_is_refused() {
    let site = Site { connected: Vec::new(), ..site_with_the_underlay_inside() };
    let mut table = PeerTable::new(site);
    table.apply_event(&put("10.1.0.0-20", &vxlan("10.2.0.12", MAC), 5));
    assert_eq!(refused(&table), [("10.1.0.0-20".to_owned(), "reserved_address")]);
}

#[rstest]
#[case::last_address_of_a_network(24, "192.168.77.255", Some("no_host_address"))]
#[case::other_end_of_a_link_of_two(31, "192.168.77.255", None)]
fn broadcast_address_of_a_link(
    #[case] len: u8,
    #[case] public_ip: IpAddr,
    #[case] label: Option<&'static str>,
) {
    let link = masked(IpNetwork::new(public_ip, len).unwrap());
    let mut table = PeerTable::new(Site { connected: vec![link], ..site(Kind::Vxlan) });
    table.apply_event(&put("10.5.24.0-24", &vxlan(&public_ip.to_string(), MAC), 5));
    assert_eq!(refused(&table).first().map(|(_, label)| *label), label);
}

#[test]
fn every_label_is_its_own() {
    let (subnet, address) = ("10.5.24.0/24".parse().unwrap(), Ipv4Addr::LOCALHOST.into());
    let found = String::new;
    let refusals = [
        Refusal::Unreadable(found()),
        Refusal::HostBits(subnet),
        Refusal::OutsideNetwork { subnet, network: subnet },
        Refusal::Length { subnet, expected: 24 },
        Refusal::OwnSubnet(subnet),
        Refusal::Connected { subnet, connected: subnet },
        Refusal::Reserved { subnet, address },
        Refusal::CoversPeer { subnet, public_ip: address },
        Refusal::NoHost(address),
        Refusal::OwnAddress(address),
        Refusal::Backend { found: found(), expected: Kind::Udp },
        Refusal::NoVtepMac(found()),
        Refusal::Vni { found: found(), expected: Vni::new(1).unwrap() },
        Refusal::VtepMacTaken(Mac::ZERO),
        Refusal::SubnetTaken(subnet),
    ];
    let labels: BTreeSet<_> = refusals.iter().map(Refusal::label).collect();
    assert_eq!(labels.len(), refusals.len(), "{labels:?}");
}

/// Both families are served: each is accepted or refused by itself.
fn site_of_both() -> Site {
    let site = site(Kind::Vxlan);
    let v6 = FamilySite {
        network: "fd00:10:5::/48".parse().unwrap(),
        subnet_len: 64,
        subnet: "fd00:10:5:1::/64".parse().unwrap(),
        vtep: site.families.v4.unwrap().vtep.map(|(vni, _)| (vni, Mac([2, 0, 0, 0, 6, 0x11]))),
    };
    Site { families: PerFamily { v6: Some(v6), ..site.families }, ..site }
}

/// A value as stock flannel writes it with the VXLAN backend and both families.
fn dual(public_ip: &str, public_ipv6: &str) -> String {
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":"{public_ipv6}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{MAC}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{MAC_V6}"}}}}"#
    )
}

const MAC_V6: &str = "fa:36:2c:5b:b0:c8";

#[test]
fn lease_of_both_families_makes_two_peers() {
    let mut table = PeerTable::new(site_of_both());
    let key = "10.5.24.0-24&fd00:10:5:24::-64";
    table.apply_event(&put(key, &dual("192.168.77.12", "fd77::12"), 5));
    let expected =
        [peer("10.5.24.0/24", "192.168.77.12", MAC), peer("fd00:10:5:24::/64", "fd77::12", MAC_V6)];
    assert_eq!(peers(&table), expected);
    assert_eq!(table.apply_event(&delete(key, 6)).removed, expected);
}

#[rstest]
#[case::no_address_of_ipv6("10.5.24.0-24&fd00:10:5:24::-64", vxlan("192.168.77.12", MAC), "no_host_address")]
#[case::host_bits_in_ipv6("10.5.24.0-24&fd00:10:5:24::1-64", dual("192.168.77.12", "fd77::12"), "host_bits")]
#[case::subnet_of_this_host("10.5.24.0-24&fd00:10:5:1::-64", dual("192.168.77.12", "fd77::12"), "own_subnet")]
fn family_that_is_refused_does_not_take_the_other_along(
    #[case] key: &str,
    #[case] value: String,
    #[case] label: &str,
) {
    let mut table = PeerTable::new(site_of_both());
    table.apply_event(&put(key, &value, 5));
    assert_eq!(peers(&table), [peer("10.5.24.0/24", "192.168.77.12", MAC)]);
    assert_eq!(refused(&table), [(key.to_owned(), label)]);
}

#[test]
fn peer_of_one_family_is_served_in_that() {
    let mut table = PeerTable::new(site_of_both());
    table.apply_event(&put("10.5.24.0-24", &vxlan("192.168.77.12", MAC), 5));
    let value = dual("0.0.0.0", "fd77::13");
    table.apply_event(&put("0.0.0.0-0&fd00:10:5:25::-64", &value, 6));
    assert_eq!(
        peers(&table),
        [peer("fd00:10:5:25::/64", "fd77::13", MAC_V6), peer("10.5.24.0/24", "192.168.77.12", MAC)]
    );
    assert_eq!(refused(&table), []);
}
