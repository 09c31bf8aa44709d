use std::net::{IpAddr, Ipv4Addr};

use flannel_common::{Mac, Vni};
use flannel_model::config::backend::{BackendConfig, UdpConfig, VxlanConfig};
use flannel_model::device::{Device, DeviceSpec};
use flannel_model::family::{Family, PerFamily};
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::{Announced, VxlanFormat};
use rstest::rstest;

use super::{Backend, Kind, Object, Transition, Unreachable, Unsuitable, attributes, between, of};
use crate::peers::Peer;

const PUBLIC_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 12));
const MAC: Mac = Mac([0xfa, 0x36, 0x2c, 0x5b, 0xb0, 0xc7]);
const DEVICE: u32 = 7;
const FORMAT: VxlanFormat = VxlanFormat { vni: Vni::new(1).unwrap(), port: 8472 };

const UDP: BackendConfig = BackendConfig::Udp(UdpConfig { port: 8285, direct_routing: false });

fn peer() -> Peer {
    Peer {
        subnet: "10.5.78.0/24".parse().unwrap(),
        public_ip: PUBLIC_IP,
        vtep_mac: Some(MAC),
        announced: Announced::default(),
        heard: None,
    }
}

fn vxlan(mtu: Option<u32>, direct_routing: bool) -> BackendConfig {
    BackendConfig::Vxlan(VxlanConfig { vni: Vni::new(1).unwrap(), port: 8472, mtu, direct_routing })
}

fn underlay() -> Underlay {
    Underlay {
        name: "eth0".to_owned(),
        index: 2,
        vrf: None,
        mtu: 1500,
        mac: MAC,
        addresses: Ipv4Addr::new(192, 168, 77, 11).into(),
        public: Ipv4Addr::new(192, 168, 77, 11).into(),
        networks: Vec::new(),
    }
}

/// The backend, and the links it would have.
fn prepared(config: &BackendConfig) -> (Box<dyn Backend>, Links) {
    let (backend, underlay) = (of(config), underlay());
    let device = backend.device(&underlay, Family::V4).map(|spec| Device {
        name: spec.name(),
        index: DEVICE,
        mac: MAC,
        mtu: spec.mtu(),
        segmenter: None,
    });
    (backend, Links { underlay, devices: PerFamily { v4: device, v6: None }, former: PerFamily::NONE })
}

#[rstest]
#[case::tunnel(false, Hop::Link)]
#[case::tunnel_of_a_routed_peer(false, Hop::Routed)]
#[case::direct_routing_of_a_routed_peer(true, Hop::Routed)]
fn peer_of_vxlan_is_neighbour_forwarding_entry_table_entry_and_route(#[case] direct: bool, #[case] hop: Hop) {
    let (backend, links) = prepared(&vxlan(None, direct));
    let (Peer { subnet, public_ip, .. }, device) = (peer(), DEVICE);
    assert_eq!(
        backend.objects(&peer(), hop, &links).unwrap(),
        [
            Object::Neighbour { device, ip: subnet.network(), mac: MAC },
            Object::Fdb { device, mac: MAC, vtep: public_ip, vni: None, port: None },
            Object::Peer { subnet, public_ip, mac: MAC, direct: false, format: Some(FORMAT) },
            Object::Route { subnet, via: Some(subnet.network()), device, onlink: true },
        ]
    );
    assert_eq!(backend.depends_on_hop(), direct);
}

/// The table of the programs knows the peer, too, though they forward nothing to it.
fn direct(mac: Mac, format: Option<VxlanFormat>) -> [Object; 2] {
    let Peer { subnet, public_ip, .. } = peer();
    [
        Object::Peer { subnet, public_ip, mac, direct: true, format },
        Object::Route { subnet, via: Some(public_ip), device: underlay().index, onlink: false },
    ]
}

#[test]
fn peer_of_direct_routing_on_the_link_is_a_route_and_a_table_entry() {
    let (backend, links) = prepared(&vxlan(None, true));
    assert_eq!(backend.objects(&peer(), Hop::Link, &links).unwrap(), direct(MAC, Some(FORMAT)));
}

/// This host sends by the tunnel, which every peer takes; the guard takes both from a peer on the link.
#[rstest]
#[case::vxlan(vxlan(None, true))]
#[case::vxlan_back(vxlan(None, false))]
#[case::udp(UDP)]
fn while_direct_routing_changes_packets_come_either_way_and_go_by_the_tunnel(#[case] config: BackendConfig) {
    let between = between(&config, Transition { routing: true, former: None });
    let (tunnel, links) = prepared(&config);
    assert!(between.depends_on_hop());
    let tunnelled = tunnel.objects(&peer(), Hop::Routed, &links).unwrap();
    assert_eq!(between.objects(&peer(), Hop::Routed, &links).unwrap(), tunnelled);
    let expected = tunnelled.into_iter().map(|object| match object {
        Object::Peer { subnet, public_ip, mac, format, .. } => {
            Object::Peer { subnet, public_ip, mac, direct: true, format }
        }
        other => other,
    });
    assert_eq!(between.objects(&peer(), Hop::Link, &links).unwrap(), expected.collect::<Vec<_>>());
}

#[test]
fn peer_of_vxlan_without_a_mac_is_unreachable() {
    let (backend, links) = prepared(&vxlan(None, false));
    let peer = Peer { vtep_mac: None, ..peer() };
    let error = backend.objects(&peer, Hop::Link, &links).unwrap_err();
    assert_eq!(error, Unreachable::NoVtepMac { subnet: peer.subnet });
}

#[test]
fn peer_of_udp_is_a_table_entry_below_one_route() {
    let (backend, links) = prepared(&UDP);
    let Peer { subnet, public_ip, .. } = peer();
    let entry = Object::Peer { subnet, public_ip, mac: Mac::ZERO, direct: false, format: None };
    assert_eq!(backend.objects(&peer(), Hop::Routed, &links).unwrap(), [entry]);
    let network = "10.5.0.0/16".parse().unwrap();
    let route = Object::Route { subnet: network, via: None, device: DEVICE, onlink: false };
    assert_eq!(backend.standing(network, &links), [route]);
}

#[test]
fn peer_of_udp_on_the_link_is_a_route_where_that_is_wanted() {
    let (backend, links) = prepared(&BackendConfig::Udp(UdpConfig { port: 8285, direct_routing: true }));
    assert!(backend.depends_on_hop());
    assert_eq!(backend.objects(&peer(), Hop::Link, &links).unwrap(), direct(MAC, None));
    let Peer { subnet, public_ip, .. } = peer();
    let entry = Object::Peer { subnet, public_ip, mac: Mac::ZERO, direct: false, format: None };
    assert_eq!(backend.objects(&peer(), Hop::Routed, &links).unwrap(), [entry]);
}

#[test]
fn peer_of_host_gw_is_a_route_and_a_table_entry_or_the_reason_why_not() {
    let (backend, links) = prepared(&BackendConfig::HostGw);
    let peer = Peer { vtep_mac: None, ..peer() };
    assert_eq!(backend.objects(&peer, Hop::Link, &links).unwrap(), direct(Mac::ZERO, None));
    let reason = backend.objects(&peer, Hop::Routed, &links).unwrap_err().to_string();
    assert!(reason.starts_with("peer 192.168.77.12 is not on the link of eth0"), "{reason}");
}

#[test]
fn peer_of_alloc_is_nothing() {
    let (backend, links) = prepared(&BackendConfig::Alloc);
    assert_eq!(backend.objects(&peer(), Hop::Link, &links), Ok(Vec::new()));
}

#[rstest]
#[case::udp(UDP, Kind::Udp, None, 1472, Some("flannel0"))]
#[case::vxlan(vxlan(None, false), Kind::Vxlan, Some("vxlan"), 1450, Some("flannel.1"))]
#[case::vxlan_with_a_smaller_mtu(
    vxlan(Some(1400), false),
    Kind::Vxlan,
    Some("vxlan"),
    1350,
    Some("flannel.1")
)]
#[case::vxlan_with_more_than_the_link_carries(
    vxlan(Some(9000), false),
    Kind::Vxlan,
    Some("vxlan"),
    1450,
    Some("flannel.1")
)]
#[case::host_gw(BackendConfig::HostGw, Kind::HostGw, Some("host-gw"), 1500, None)]
#[case::alloc(BackendConfig::Alloc, Kind::Alloc, None, 1500, None)]
fn mtu_type_and_device(
    #[case] config: BackendConfig,
    #[case] kind: Kind,
    #[case] lease_type: Option<&str>,
    #[case] mtu: u32,
    #[case] device: Option<&str>,
) {
    let (backend, links) = prepared(&config);
    assert_eq!((backend.kind(), backend.mtu(&links)), (kind, mtu));
    let attributes = attributes(&*backend, &links);
    assert_eq!((attributes.public, attributes.backend_type.as_deref()), (links.underlay.public, lease_type));
    assert_eq!(attributes.backend_data.is_empty(), kind != Kind::Vxlan);
    assert_eq!(links.devices.v4.map(|device| device.name).as_deref(), device);
}

#[test]
fn vxlan_publishes_the_bytes_of_stock_flannel() {
    let (backend, links) = prepared(&vxlan(None, false));
    let data = attributes(&*backend, &links).backend_data.v4.unwrap().to_string();
    assert_eq!(data, format!(r#"{{"VNI":1,"VtepMAC":"{MAC}"}}"#));
}

#[test]
fn vxlan_has_a_device_for_each_family_of_the_underlay() {
    let backend = of(&vxlan(None, false));
    let mut underlay = underlay();
    assert_eq!(backend.device(&underlay, Family::V6), None);
    underlay.addresses.v6 = Some("fd77::11".parse().unwrap());
    let spec = backend.device(&underlay, Family::V6).unwrap();
    assert_eq!((spec.name().as_str(), spec.mtu()), ("flannel-v6.1", 1430));
}

#[test]
fn host_gw_refuses_a_translated_address() {
    let underlay = Underlay { public: Ipv4Addr::new(198, 51, 100, 7).into(), ..underlay() };
    let error = of(&BackendConfig::HostGw).check(&underlay).unwrap_err();
    assert!(matches!(error, Unsuitable::TranslatedAddress { .. }));
    assert!(error.to_string().starts_with(
        "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not \
         supported by host-gw backend"
    ));
}

/// Everything of `peer` that bears the format in which it takes packets: the identifier and the port of its forwarding
/// entry, where they are not the device's, and that of the table.
fn formats_of(peer: &Peer, former: VxlanFormat) -> (Option<u32>, Option<u16>, Option<VxlanFormat>) {
    let transition = Transition { former: Some(former), routing: false };
    let (config, links) = (vxlan(None, false), prepared(&vxlan(None, false)).1);
    let objects = between(&config, transition).objects(peer, Hop::Link, &links).unwrap();
    let [_, Object::Fdb { vni, port, .. }, Object::Peer { format, .. }, _] = objects[..] else {
        panic!("{objects:?}");
    };
    (vni.map(Vni::get), port, format)
}

#[test]
fn each_peer_is_sent_to_in_the_format_that_it_takes() {
    let saying = |vni, port| Peer { announced: Announced { vni: Vni::new(vni), port }, ..peer() };
    let of_another_network = VxlanFormat { vni: Vni::new(7).unwrap(), port: 4789 };
    assert_eq!(formats_of(&saying(1, None), of_another_network), (None, None, Some(FORMAT)));
    let former = (Some(7), Some(4789), Some(of_another_network));
    assert_eq!(formats_of(&saying(7, None), of_another_network), former);
    let of_another_port = VxlanFormat { port: 4789, ..FORMAT };
    assert_eq!(formats_of(&saying(1, Some(8472)), of_another_port), (None, None, Some(FORMAT)));
    assert_eq!(formats_of(&saying(1, None), of_another_port), (None, Some(4789), Some(of_another_port)));
}

#[test]
fn the_lease_names_the_port_while_there_are_two_formats() {
    let data = |former| {
        let (backend, links) = (
            between(&vxlan(None, false), Transition { former, routing: false }),
            prepared(&vxlan(None, false)).1,
        );
        backend.lease_data(links.devices.v4.as_ref().unwrap()).unwrap().to_string()
    };
    assert_eq!(data(None), r#"{"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"}"#, "as stock flannel writes it");
    assert_eq!(
        data(Some(VxlanFormat { port: 4789, ..FORMAT })),
        r#"{"Port":8472,"VNI":1,"VtepMAC":"fa:36:2c:5b:b0:c7"}"#
    );
}

#[rstest]
#[case::another_identifier(7, 8472, "flannel.7")]
#[case::another_port(1, 4789, "flannel-former")]
fn the_former_format_has_a_device_of_its_own(#[case] vni: u32, #[case] port: u16, #[case] name: &str) {
    let former = VxlanFormat { vni: Vni::new(vni).unwrap(), port };
    let backend = between(&vxlan(None, false), Transition { former: Some(former), routing: false });
    let DeviceSpec::Vxlan(spec) = backend.former_device(&underlay(), Family::V4).unwrap() else { panic!() };
    assert_eq!((spec.name().as_str(), spec.vni.get(), spec.port), (name, vni, port));
    assert_eq!(backend.device(&underlay(), Family::V4).unwrap().name(), "flannel.1");
    assert_eq!(of(&vxlan(None, false)).former_device(&underlay(), Family::V4), None);
}
