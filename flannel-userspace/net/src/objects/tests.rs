use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use flannel_common::{Mac, Vni};
use flannel_model::device::{Device, VxlanSpec};
use flannel_model::family::PerFamily;
use flannel_model::object::Object;
use flannel_model::underlay::Underlay;
use ipnetwork::IpNetwork;
use rstest::rstest;

use super::{ObjectError, Objects};
use crate::Netlink;
use crate::namespace::{add_interface, ip, ip_json, on_host, run};

const MAC: Mac = Mac([0xfa, 0x36, 0x2c, 0x5b, 0xb0, 0xc7]);
const OTHER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
const VTEP: IpAddr = v4([192, 168, 77, 12]);
const GATEWAY: IpAddr = v4([10, 5, 78, 0]);

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn subnet() -> IpNetwork {
    IpNetwork::new(GATEWAY, 24).unwrap()
}

fn neighbour(device: u32, mac: Mac) -> Object {
    Object::Neighbour { device, ip: GATEWAY, mac }
}

fn overlay_route(device: u32) -> Object {
    Object::Route { subnet: subnet(), via: Some(GATEWAY), device, onlink: true }
}

fn direct_route(underlay: &Underlay) -> Object {
    Object::Route { subnet: subnet(), via: Some(VTEP), device: underlay.index, onlink: false }
}

async fn listed(objects: &Objects) -> BTreeSet<Object> {
    objects.list().await.unwrap().into_iter().collect()
}

async fn vxlan(netlink: &Netlink, underlay: &Underlay) -> (Device, Objects) {
    let spec = VxlanSpec {
        vni: Vni::new(1).unwrap(),
        port: 8472,
        mtu: 1450,
        local: underlay.addresses.first().unwrap(),
        underlay: underlay.index,
        mac: None,
        steps_aside: false,
    };
    let device = netlink.ensure_vxlan(&spec).await.unwrap();
    let objects = Objects::new(netlink.clone(), PerFamily::only_v4(Some(device.index)));
    (device, objects)
}

#[test]
fn peer_of_vxlan_looks_as_by_stock_flannel_and_is_listed() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        let wanted = BTreeSet::from([
            neighbour(device.index, MAC),
            Object::Fdb { device: device.index, mac: MAC, vtep: VTEP, vni: None, port: None },
            overlay_route(device.index),
        ]);
        for _ in 0..2 {
            for object in &wanted {
                objects.put(object).await.unwrap();
            }
            assert_eq!(ip("route show dev flannel.1").trim(), "10.5.78.0/24 via 10.5.78.0 onlink");
            assert_eq!(
                ip("route show 10.5.78.0/24").trim(),
                "10.5.78.0/24 via 10.5.78.0 dev flannel.1 onlink"
            );
            assert_eq!(
                ip("neighbour show dev flannel.1 10.5.78.0").trim(),
                "10.5.78.0 lladdr fa:36:2c:5b:b0:c7 PERMANENT"
            );
            assert_eq!(
                run("bridge", "fdb show dev flannel.1").trim(),
                "fa:36:2c:5b:b0:c7 dst 192.168.77.12 self permanent"
            );
            assert_eq!(listed(&objects).await, wanted);
        }
        for object in wanted.iter().rev() {
            objects.remove(object).await.unwrap();
        }
        assert_eq!(listed(&objects).await, BTreeSet::new());
        assert_eq!(run("bridge", "fdb show dev flannel.1"), "");
    });
}

#[test]
fn forwarding_entry_is_replaced_not_appended() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        for last in 12..15 {
            let vtep = v4([192, 168, 77, last]);
            objects
                .put(&Object::Fdb { device: device.index, mac: MAC, vtep, vni: None, port: None })
                .await
                .unwrap();
        }
        assert_eq!(
            run("bridge", "fdb show dev flannel.1").trim(),
            "fa:36:2c:5b:b0:c7 dst 192.168.77.14 self permanent"
        );
    });
}

#[test]
fn entry_stays_when_the_one_it_replaced_is_removed_afterwards() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        let index = device.index;
        let new_vtep = v4([192, 168, 77, 13]);
        let pairs = [
            (neighbour(index, MAC), neighbour(index, OTHER_MAC)),
            (
                Object::Fdb { device: index, mac: MAC, vtep: VTEP, vni: None, port: None },
                Object::Fdb { device: index, mac: MAC, vtep: new_vtep, vni: None, port: None },
            ),
            (direct_route(&underlay), overlay_route(index)),
            (overlay_route(index), direct_route(&underlay)),
        ];
        for (old, new) in pairs {
            objects.put(&old).await.unwrap();
            objects.put(&new).await.unwrap();
            objects.remove(&old).await.unwrap();
            assert_eq!(listed(&objects).await, BTreeSet::from([new.clone()]), "after {old:?}");
            objects.remove(&new).await.unwrap();
        }
    });
}

#[test]
fn removal_of_what_is_absent_is_success() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        let index = device.index;
        let absent = [
            neighbour(index, MAC),
            Object::Fdb { device: index, mac: MAC, vtep: VTEP, vni: None, port: None },
            overlay_route(index),
            direct_route(&underlay),
        ];
        for object in &absent {
            objects.remove(object).await.unwrap();
        }
        netlink.remove_device("flannel.1").await.unwrap();
        for object in &absent {
            objects.remove(object).await.unwrap();
        }
        assert_eq!(listed(&objects).await, BTreeSet::new());
    });
}

#[test]
fn foreign_objects_are_not_listed() {
    on_host(async |netlink, underlay| {
        let (_, objects) = vxlan(&netlink, &underlay).await;
        ip("link add other type vxlan id 9 dev eth0 dstport 8472");
        ip("link set other up");
        for foreign in [
            "neighbour add 192.168.77.50 lladdr 02:00:00:00:00:50 dev eth0 nud permanent",
            "neighbour add 10.5.50.0 lladdr 02:00:00:00:00:51 dev flannel.1 nud reachable",
            "route add 10.60.0.0/24 via 192.168.77.12 dev eth0",
            "route add 10.61.0.0/24 via 192.168.77.12 dev eth0 proto static",
            "route add 10.62.0.0/24 dev other",
            "route add 10.63.0.0/24 via 192.168.77.12 dev eth0 table 100 proto 85",
            "route add blackhole 10.64.0.0/24 proto 85",
            "route add 10.65.0.0/24 dev flannel.1 metric 7",
            "route add 10.66.0.0/24 dev flannel.1 proto static",
        ] {
            ip(foreign);
        }
        run("bridge", "fdb add 02:00:00:00:00:52 dev other dst 192.168.77.52 self permanent");
        run("bridge", "fdb add 02:00:00:00:00:53 dev flannel.1 dst 192.168.77.53 self dynamic");
        assert_eq!(listed(&objects).await, BTreeSet::new());
    });
}

#[test]
fn without_a_device_only_routes_with_our_protocol_are_listed() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        objects.put(&neighbour(device.index, MAC)).await.unwrap();
        let host_gw = Objects::new(netlink, PerFamily::only_v4(None));
        host_gw.put(&direct_route(&underlay)).await.unwrap();
        assert_eq!(ip("route show 10.5.78.0/24").trim(), "10.5.78.0/24 via 192.168.77.12 dev eth0 proto 85");
        assert_eq!(listed(&host_gw).await, BTreeSet::from([direct_route(&underlay)]));
    });
}

#[rstest]
#[case::of_stock_host_gw(&["route add 10.5.78.0/24 via 192.168.77.12 dev eth0"])]
#[case::of_stock_host_gw_by_another_peer(&["route add 10.5.78.0/24 via 192.168.77.99 dev eth0"])]
#[case::of_another_backend(&[
    "link add flannel.7 type vxlan id 7 dev eth0 dstport 8472", "link set flannel.7 up",
    "route add 10.5.78.0/24 via 10.5.78.0 dev flannel.7 onlink",
])]
#[case::of_our_own_by_a_former_interface(&["route add 10.5.78.0/24 dev eth0-wire proto 85"])]
fn route_of_flannel_is_taken_over(#[case] setup: &[&str]) {
    on_host(async |netlink, underlay| {
        setup.iter().for_each(|command| drop(ip(command)));
        Objects::new(netlink, PerFamily::only_v4(None)).put(&direct_route(&underlay)).await.unwrap();
        assert_eq!(ip("route show 10.5.78.0/24").trim(), "10.5.78.0/24 via 192.168.77.12 dev eth0 proto 85");
    });
}

#[rstest]
#[case::connected_network("address add 10.5.78.1/24 dev eth1", "10.5.78.0/24 dev eth1 proto 2")]
#[case::static_route(
    "route add 10.5.78.0/24 via 192.168.77.99 proto static",
    "10.5.78.0/24 via 192.168.77.99 dev eth0 proto 4"
)]
#[case::by_another_interface(
    "route add 10.5.78.0/24 via 172.16.0.9 dev eth1",
    "10.5.78.0/24 via 172.16.0.9 dev eth1 proto 3"
)]
fn route_of_somebody_else_is_named_and_left(#[case] setup: &str, #[case] named: &str) {
    on_host(async |netlink, underlay| {
        add_interface("eth1", "172.16.0.1/24");
        ip(setup);
        let before = ip("route show 10.5.78.0/24");
        let error =
            Objects::new(netlink, PerFamily::only_v4(None)).put(&direct_route(&underlay)).await.unwrap_err();
        assert!(matches!(&error, ObjectError::RouteTaken { existing, .. } if existing == named), "{error}");
        assert_eq!(ip("route show 10.5.78.0/24"), before);
    });
}

#[test]
fn route_with_a_metric_is_no_conflict() {
    on_host(async |netlink, underlay| {
        ip("route add 10.5.78.0/24 via 192.168.77.99 proto static metric 100");
        Objects::new(netlink, PerFamily::only_v4(None)).put(&direct_route(&underlay)).await.unwrap();
        assert_eq!(ip_json("route show 10.5.78.0/24").as_array().unwrap().len(), 2);
    });
}

#[test]
fn entry_of_the_programs_is_refused() {
    on_host(async |netlink, _| {
        let peer = Object::Peer { subnet: subnet(), public_ip: VTEP, mac: MAC, direct: false, format: None };
        let objects = Objects::new(netlink, PerFamily::only_v4(None));
        assert!(matches!(objects.put(&peer).await, Err(ObjectError::NotNetlink(refused)) if refused == peer));
        assert!(matches!(objects.remove(&peer).await, Err(ObjectError::NotNetlink(_))));
    });
}

#[test]
fn thousands_of_peers_are_put_and_listed() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        let index = device.index;
        let mut wanted = BTreeSet::new();
        for number in 0..2000u16 {
            let [high, low] = number.to_be_bytes();
            let gateway = v4([10, 64 + high, low, 0]);
            let mac = Mac([2, 0, 0, 0, high, low]);
            wanted.insert(Object::Neighbour { device: index, ip: gateway, mac });
            wanted.insert(Object::Fdb {
                device: index,
                mac,
                vtep: v4([192, 168, high, low]),
                vni: None,
                port: None,
            });
            let subnet = IpNetwork::new(gateway, 24).unwrap();
            wanted.insert(Object::Route { subnet, via: Some(gateway), device: index, onlink: true });
        }
        let started = std::time::Instant::now();
        for object in &wanted {
            objects.put(object).await.unwrap();
        }
        let listed = listed(&objects).await;
        assert!(listed == wanted, "{} of {} are listed", listed.len(), wanted.len());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    });
}

#[test]
fn many_routes_are_listed_replaced_and_removed_as_few_are() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan(&netlink, &underlay).await;
        let index = device.index;
        let route = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let gateway = v4([10, 64 + high, low, 0]);
            let subnet = IpNetwork::new(gateway, 24).unwrap();
            Object::Route { subnet, via: Some(gateway), device: index, onlink: true }
        };
        // One is there already, a number is taken, and a destination is somebody else's.
        objects.put(&route(0)).await.unwrap();
        ip("nexthop add id 171966720 via 192.168.77.99 dev eth0");
        ip("route add 10.64.2.0/24 via 192.168.77.99 proto static");
        let wanted: Vec<Object> = (0..5000).map(route).collect();
        let failed = objects.put_all(&wanted).await;
        assert!(
            matches!(failed.as_slice(), [(object, ObjectError::RouteTaken { .. })] if *object == route(2))
        );
        let is_put = |object: &&Object| **object != route(2);
        assert!(listed(&objects).await == wanted.iter().filter(is_put).cloned().collect());
        assert!(ip("route show 10.64.3.0/24").contains("nhid 171967232 via 10.64.3.0 dev flannel.1"));
        assert_eq!(ip("route show 10.64.1.0/24").trim(), "10.64.1.0/24 via 10.64.1.0 dev flannel.1 onlink");
        assert!(objects.put_all(&wanted).await.len() == 1, "putting again changes nothing");
        for object in &wanted {
            objects.remove(object).await.unwrap();
        }
        assert_eq!(listed(&objects).await, BTreeSet::new());
        assert_eq!(ip("nexthop show").lines().count(), 1, "that of somebody else");
    });
}

/// `flannel-v6.1` over an underlay with an address of IPv6.
async fn vxlan_of_ipv6(netlink: &Netlink, underlay: &Underlay) -> (Device, Objects) {
    ip("address add fd77::11/64 dev eth0 nodad");
    let spec = VxlanSpec {
        vni: Vni::new(1).unwrap(),
        port: 8472,
        mtu: 1430,
        local: "fd77::11".parse().unwrap(),
        underlay: underlay.index,
        mac: None,
        steps_aside: false,
    };
    let device = netlink.ensure_vxlan(&spec).await.unwrap();
    assert_eq!(netlink.ensure_vxlan(&spec).await.unwrap(), device, "it fits");
    let families = PerFamily { v4: None, v6: Some(Some(device.index)) };
    (device, Objects::new(netlink.clone(), families))
}

#[test]
fn peer_of_ipv6_is_put_listed_and_removed() {
    on_host(async |netlink, underlay| {
        let (device, objects) = vxlan_of_ipv6(&netlink, &underlay).await;
        assert_eq!(device.name, "flannel-v6.1");
        let index = device.index;
        netlink
            .ensure_address(&device, "fd00:10:5:1::".parse().unwrap(), "fd00:10:5::/48".parse().unwrap())
            .await
            .unwrap();
        let (gateway, vtep): (IpAddr, IpAddr) =
            ("fd00:10:5:78::".parse().unwrap(), "fd77::12".parse().unwrap());
        let subnet = IpNetwork::new(gateway, 64).unwrap();
        let direct = IpNetwork::new("fd00:10:5:79::".parse().unwrap(), 64).unwrap();
        let wanted = BTreeSet::from([
            Object::Neighbour { device: index, ip: gateway, mac: MAC },
            Object::Fdb { device: index, mac: MAC, vtep, vni: None, port: None },
            Object::Route { subnet, via: Some(gateway), device: index, onlink: true },
            Object::Route { subnet: direct, via: Some(vtep), device: underlay.index, onlink: false },
        ]);
        for _ in 0..2 {
            for object in &wanted {
                objects.put(object).await.unwrap();
            }
            assert_eq!(listed(&objects).await, wanted);
        }
        for object in &wanted {
            objects.remove(object).await.unwrap();
            objects.remove(object).await.unwrap();
        }
        assert_eq!(listed(&objects).await, BTreeSet::new());
    });
}
