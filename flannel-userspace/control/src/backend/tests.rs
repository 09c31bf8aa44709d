use std::net::Ipv4Addr;

use flannel_common::{Mac, Vni};
use flannel_model::config::backend::{BackendConfig, UdpConfig, VxlanConfig};
use flannel_model::underlay::{Hop, Underlay};
use flannel_net::Netlink;
use flannel_net::namespace::{ip, ip_json, on_host};
use rstest::rstest;

use super::{Backend, Kind, Object, PrepareError, Unreachable};
use crate::peers::Peer;

const PUBLIC_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 12);
const MAC: Mac = Mac([0xfa, 0x36, 0x2c, 0x5b, 0xb0, 0xc7]);

const UDP: BackendConfig = BackendConfig::Udp(UdpConfig { port: 8285, direct_routing: false });

fn peer() -> Peer {
    Peer { subnet: "10.5.78.0/24".parse().unwrap(), public_ip: PUBLIC_IP, vtep_mac: Some(MAC) }
}

fn vxlan(mtu: Option<u32>, direct_routing: bool) -> BackendConfig {
    BackendConfig::Vxlan(VxlanConfig { vni: Vni::new(1).unwrap(), port: 8472, mtu, direct_routing })
}

fn prepared(config: BackendConfig, test: impl AsyncFnOnce(Netlink, Underlay, Backend) + Send) {
    on_host(async |netlink, underlay| {
        let backend = Backend::prepare(&config, &netlink, &underlay, None).await.unwrap();
        test(netlink, underlay, backend).await;
    });
}

#[rstest]
#[case::tunnel(false, Hop::Link)]
#[case::tunnel_of_a_routed_peer(false, Hop::Routed)]
#[case::direct_routing_of_a_routed_peer(true, Hop::Routed)]
fn peer_of_vxlan_is_neighbour_forwarding_entry_table_entry_and_route(#[case] direct: bool, #[case] hop: Hop) {
    prepared(vxlan(None, direct), async |_, _, backend| {
        let Peer { subnet, public_ip, .. } = peer();
        let device = backend.device().unwrap().index;
        assert_eq!(
            backend.objects(&peer(), hop).unwrap(),
            [
                Object::Neighbour { device, ip: subnet.network(), mac: MAC },
                Object::Fdb { device, mac: MAC, vtep: public_ip },
                Object::Peer { subnet, public_ip, mac: MAC, direct: false },
                Object::Route { subnet, via: Some(subnet.network()), device, onlink: true },
            ]
        );
        assert_eq!(backend.depends_on_hop(), direct);
    });
}

/// The table of the programs knows the peer, too, though they forward nothing to it.
fn direct(underlay: &Underlay, mac: Mac) -> [Object; 2] {
    let Peer { subnet, public_ip, .. } = peer();
    [
        Object::Peer { subnet, public_ip, mac, direct: true },
        Object::Route { subnet, via: Some(public_ip), device: underlay.index, onlink: false },
    ]
}

#[test]
fn peer_of_direct_routing_on_the_link_is_a_route_and_a_table_entry() {
    prepared(vxlan(None, true), async |_, underlay, backend| {
        assert_eq!(backend.objects(&peer(), Hop::Link).unwrap(), direct(&underlay, MAC));
    });
}

#[test]
fn peer_of_vxlan_without_a_mac_is_unreachable() {
    prepared(vxlan(None, false), async |_, _, backend| {
        let peer = Peer { vtep_mac: None, ..peer() };
        let error = backend.objects(&peer, Hop::Link).unwrap_err();
        assert_eq!(error, Unreachable::NoVtepMac { subnet: peer.subnet });
    });
}

#[test]
fn peer_of_udp_is_a_table_entry_below_one_route() {
    prepared(UDP, async |_, _, backend| {
        let Peer { subnet, public_ip, .. } = peer();
        let entry = Object::Peer { subnet, public_ip, mac: Mac::ZERO, direct: false };
        assert_eq!(backend.objects(&peer(), Hop::Routed).unwrap(), [entry]);
        let network = "10.5.0.0/16".parse().unwrap();
        let device = backend.device().unwrap().index;
        let route = Object::Route { subnet: network, via: None, device, onlink: false };
        assert_eq!(backend.standing(network), [route]);
    });
}

#[test]
fn peer_of_udp_on_the_link_is_a_route_where_that_is_wanted() {
    let config = BackendConfig::Udp(UdpConfig { port: 8285, direct_routing: true });
    prepared(config, async |_, underlay, backend| {
        assert!(backend.depends_on_hop());
        assert_eq!(backend.objects(&peer(), Hop::Link).unwrap(), direct(&underlay, MAC));
        let Peer { subnet, public_ip, .. } = peer();
        let entry = Object::Peer { subnet, public_ip, mac: Mac::ZERO, direct: false };
        assert_eq!(backend.objects(&peer(), Hop::Routed).unwrap(), [entry]);
    });
}

#[test]
fn peer_of_host_gw_is_a_route_and_a_table_entry_or_the_reason_why_not() {
    prepared(BackendConfig::HostGw, async |_, underlay, backend| {
        let peer = Peer { vtep_mac: None, ..peer() };
        assert_eq!(backend.objects(&peer, Hop::Link).unwrap(), direct(&underlay, Mac::ZERO));
        let reason = backend.objects(&peer, Hop::Routed).unwrap_err().to_string();
        assert!(reason.starts_with("peer 192.168.77.12 is not on the link of eth0"), "{reason}");
    });
}

#[test]
fn peer_of_alloc_is_nothing() {
    prepared(BackendConfig::Alloc, async |_, _, backend| {
        assert_eq!(backend.objects(&peer(), Hop::Link), Ok(Vec::new()));
    });
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
    prepared(config, async |_, _, backend| {
        assert_eq!((backend.kind(), backend.mtu()), (kind, mtu));
        let attributes = backend.attributes(PUBLIC_IP);
        assert_eq!((attributes.public_ip, attributes.backend_type.as_deref()), (PUBLIC_IP, lease_type));
        assert_eq!(attributes.backend_data.is_some(), kind == Kind::Vxlan);
        assert_eq!(backend.device().map(|device| device.name.as_str()), device);
        if let Some(device) = device {
            assert_eq!(ip_json(&format!("link show {device}"))[0]["mtu"], mtu);
        }
    });
}

#[test]
fn vxlan_publishes_the_bytes_of_stock_flannel() {
    prepared(vxlan(None, false), async |_, _, backend| {
        let mac = backend.device().unwrap().mac;
        let data = backend.attributes(PUBLIC_IP).backend_data.unwrap().to_string();
        assert_eq!(data, format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#));
    });
}

#[rstest]
#[case::vxlan(vxlan(None, false), "flannel.1")]
#[case::udp(UDP, "flannel0")]
fn activation_gives_the_first_address(#[case] config: BackendConfig, #[case] device: &str) {
    prepared(config, async |netlink, _, backend| {
        let (subnet, network) = ("10.5.18.0/24".parse().unwrap(), "10.5.0.0/16".parse().unwrap());
        backend.activate(&netlink, subnet, network).await.unwrap();
        let address = &ip_json(&format!("-4 address show {device}"))[0]["addr_info"][0];
        assert_eq!((&address["local"], &address["prefixlen"]), (&"10.5.18.0".into(), &32.into()));
        assert_eq!(address["scope"], "global");
    });
}

#[rstest]
#[case::vxlan(vxlan(None, false), "flannel.1")]
#[case::udp(UDP, "flannel0")]
fn deleted_device_is_restored(#[case] config: BackendConfig, #[case] name: &str) {
    prepared(config, async |netlink, _, mut backend| {
        let before = backend.device().unwrap().clone();
        assert!(!backend.restore(&netlink).await.unwrap());
        ip(&format!("link delete {name}"));
        assert!(backend.restore(&netlink).await.unwrap());
        let after = backend.device().unwrap();
        assert_ne!(after.index, before.index);
        assert_eq!(after.mtu, before.mtu);
    });
}

#[test]
fn restored_vxlan_device_has_the_published_address() {
    prepared(vxlan(None, false), async |netlink, _, mut backend| {
        let published = backend.attributes(PUBLIC_IP);
        ip("link delete flannel.1");
        backend.restore(&netlink).await.unwrap();
        assert_eq!(backend.attributes(PUBLIC_IP), published);
        ip("link set flannel.1 address 02:00:00:00:00:01");
        assert!(!backend.restore(&netlink).await.unwrap());
        assert_eq!(backend.attributes(PUBLIC_IP), published);
    });
}

#[test]
fn host_gw_refuses_a_translated_address() {
    on_host(async |netlink, underlay| {
        let underlay = Underlay { public_ip: Ipv4Addr::new(198, 51, 100, 7), ..underlay };
        let error = Backend::prepare(&BackendConfig::HostGw, &netlink, &underlay, None).await.unwrap_err();
        assert!(matches!(error, PrepareError::TranslatedAddress { .. }));
        assert!(error.to_string().starts_with(
            "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not \
             supported by host-gw backend"
        ));
    });
}
