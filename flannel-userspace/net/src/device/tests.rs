use std::net::{Ipv4Addr, UdpSocket};

use flannel_common::{Mac, Vni};
use flannel_model::device::VxlanSpec;
use flannel_model::underlay::Underlay;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::DeviceError;
use crate::namespace::{ip, ip_json, on_host};

fn spec(underlay: &Underlay) -> VxlanSpec {
    VxlanSpec {
        vni: Vni::new(1).unwrap(),
        port: 8472,
        mtu: 1450,
        local: underlay.addresses.first().unwrap(),
        underlay: underlay.index,
        mac: None,
        steps_aside: false,
    }
}

#[test]
fn vxlan_device_is_as_stock_flannel_makes_it() {
    on_host(async |netlink, underlay| {
        let device = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        assert_eq!((device.name.as_str(), device.mtu), ("flannel.1", 1450));

        let link = &ip_json("link show flannel.1")[0];
        let data = &link["linkinfo"]["info_data"];
        assert_eq!(link["ifindex"], device.index);
        assert_eq!(link["address"], device.mac.to_string());
        assert_eq!(link["mtu"], 1450);
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
        assert_eq!(data["id"], 1);
        assert_eq!(data["local"], "192.168.77.11");
        assert_eq!(data["link"], "eth0");
        assert_eq!(data["port"], 8472);
        assert_eq!(data["learning"], false);
        assert_eq!(data["udp_csum"], true);
        assert_eq!(data["ttl"], 0);
        assert!(device.mac.is_unicast() && device.mac.0[0] & 2 == 2, "{}", device.mac);
        let accept_ra = std::fs::read_to_string("/proc/sys/net/ipv6/conf/flannel.1/accept_ra");
        assert!(accept_ra.map_or(true, |value| value.trim() == "0"));
    });
}

/// A container without privileges sees them so.
#[test]
fn settings_that_cannot_be_written_are_no_obstacle() {
    on_host(async |netlink, underlay| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let sys = Some("/proc/sys");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(sys, "/proc/sys", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, "/proc/sys", None::<&str>, read_only, None::<&str>).unwrap();
        let refused = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(netlink.ensure_vxlan(&spec(&underlay)).await.unwrap().name, "flannel.1");
        assert_eq!(netlink.ensure_udp_device(1472).await.unwrap().name, "flannel0");
    });
}

#[test]
fn address_of_a_new_vxlan_device_counts_as_set_by_hand() {
    // NET_ADDR_SET, which systemd-udevd leaves alone, is 3; a random one of the kernel's is 1.
    on_host(async |netlink, underlay| {
        netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        // /sys/class/net shows the namespace in which /sys was mounted, so it is mounted again.
        let script = "mount -t sysfs none /sys && cat /sys/class/net/flannel.1/addr_assign_type";
        let output =
            std::process::Command::new("unshare").args(["--mount", "sh", "-c", script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3");
    });
}

#[test]
fn fitting_vxlan_device_is_kept_with_mac_addresses_and_routes() {
    on_host(async |netlink, underlay| {
        // As stock flannel left it.
        ip("link add flannel.1 type vxlan id 1 local 192.168.77.11 dev eth0 dstport 8472 nolearning");
        ip("link set flannel.1 mtu 1450 up");
        ip("address add 10.5.18.0/32 dev flannel.1");
        ip("route add 10.5.78.0/24 via 10.5.78.0 dev flannel.1 onlink");
        let before = ip_json("link show flannel.1");

        for _ in 0..2 {
            let device = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
            assert_eq!(device.mac.to_string(), before[0]["address"]);
            assert_eq!(device.index, before[0]["ifindex"]);
        }
        assert_eq!(ip_json("address show flannel.1")[0]["addr_info"][0]["local"], "10.5.18.0");
        assert_eq!(ip("route show 10.5.78.0/24").trim(), "10.5.78.0/24 via 10.5.78.0 dev flannel.1 onlink");
    });
}

#[test]
fn mtu_is_corrected_in_place() {
    on_host(async |netlink, underlay| {
        let first = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        ip("link set flannel.1 mtu 1200");
        let second = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(ip_json("link show flannel.1")[0]["mtu"], 1450);
    });
}

#[test]
fn vxlan_device_that_is_down_is_brought_up() {
    on_host(async |netlink, underlay| {
        let first = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        ip("link set flannel.1 down");
        assert_eq!(netlink.ensure_vxlan(&spec(&underlay)).await.unwrap(), first);
        assert!(netlink.link("flannel.1").await.unwrap().unwrap().is_up());
    });
}

#[rstest::rstest]
#[case::port("id 1 local 192.168.77.11 dev eth0 dstport 4789 nolearning")]
#[case::vni("id 2 local 192.168.77.11 dev eth0 dstport 8472 nolearning")]
#[case::local("id 1 local 192.168.77.99 dev eth0 dstport 8472 nolearning")]
#[case::underlay("id 1 local 192.168.77.11 dev eth0-wire dstport 8472 nolearning")]
#[case::no_underlay("id 1 local 192.168.77.11 dstport 8472 nolearning")]
#[case::learning("id 1 local 192.168.77.11 dev eth0 dstport 8472 learning")]
#[case::l3miss("id 1 local 192.168.77.11 dev eth0 dstport 8472 nolearning l3miss")]
#[case::gbp("id 1 local 192.168.77.11 dev eth0 dstport 8472 nolearning gbp")]
#[case::external("external dev eth0 dstport 8472 nolearning")]
fn vxlan_device_of_other_parameters_is_replaced(#[case] parameters: &str) {
    on_host(async |netlink, underlay| {
        ip(&format!("link add flannel.1 type vxlan {parameters}"));
        let before = netlink.link("flannel.1").await.unwrap().unwrap();
        let device = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        assert_ne!(device.index, before.index);
        let data = &ip_json("link show flannel.1")[0]["linkinfo"]["info_data"];
        assert_eq!((data["id"].as_u64(), data["port"].as_u64()), (Some(1), Some(8472)));
    });
}

#[test]
fn address_that_was_published_is_restored() {
    on_host(async |netlink, underlay| {
        let device = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        let published = VxlanSpec { mac: Some(device.mac), ..spec(&underlay) };

        ip("link set flannel.1 address 02:00:00:00:00:01");
        assert_eq!(netlink.ensure_vxlan(&published).await.unwrap(), device);
        ip("link delete flannel.1");
        assert_eq!(netlink.ensure_vxlan(&published).await.unwrap().mac, device.mac);
    });
}

#[test]
fn name_that_belongs_to_another_kind_of_device_is_refused() {
    on_host(async |netlink, underlay| {
        ip("link add flannel.1 type bridge");
        let error = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap_err();
        assert!(matches!(&error, DeviceError::Foreign { name, .. } if name == "flannel.1"), "{error:?}");
        assert!(error.to_string().contains("interface flannel.1 is a bridge"), "{error}");
        assert!(netlink.link("flannel.1").await.unwrap().is_some());
    });
}

#[test]
fn vni_of_another_vxlan_device_names_that_device() {
    on_host(async |netlink, underlay| {
        ip("link add other type vxlan id 1 dev eth0 dstport 8472");
        let error = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap_err();
        assert!(
            matches!(&error, DeviceError::VniTaken { culprit, vni: 1, port: 8472 } if culprit == "other")
        );
    });
}

#[test]
fn port_of_a_process_is_refused_and_no_device_left() {
    on_host(async |netlink, underlay| {
        let _socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 8472)).unwrap();
        let error = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap_err();
        assert!(matches!(&error, DeviceError::PortTaken { port: 8472, .. }), "{error:?}");
        assert!(error.to_string().contains("ss --udp"), "{error}");
        assert_eq!(netlink.link("flannel.1").await.unwrap(), None);
    });
}

#[test]
fn port_of_another_vxlan_device_of_other_flags_names_that_device() {
    on_host(async |netlink, underlay| {
        ip("link add other type vxlan external dstport 8472");
        ip("link set other up");
        let error = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    });
}

#[test]
fn second_vni_shares_the_port() {
    on_host(async |netlink, underlay| {
        netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        let second = VxlanSpec { vni: Vni::new(2).unwrap(), ..spec(&underlay) };
        assert_eq!(netlink.ensure_vxlan(&second).await.unwrap().name, "flannel.2");
    });
}

#[test]
fn vni_whose_device_name_is_too_long_is_refused() {
    on_host(async |netlink, underlay| {
        let large = VxlanSpec { vni: Vni::new(Vni::MAX).unwrap(), ..spec(&underlay) };
        let error = netlink.ensure_vxlan(&large).await.unwrap_err();
        assert!(matches!(error, DeviceError::NameTooLong(name) if name == "flannel.16777215"));
    });
}

#[test]
fn udp_device_has_a_carrier_and_keeps_silent() {
    on_host(async |netlink, _| {
        let device = netlink.ensure_udp_device(1472).await.unwrap();
        ip("address add 10.5.68.0/32 dev flannel0");
        ip("route add 10.5.0.0/16 dev flannel0");

        let link = &ip_json("link show flannel0")[0];
        let flags: Vec<&str> = link["flags"].as_array().unwrap().iter().filter_map(|f| f.as_str()).collect();
        assert!(flags.contains(&"LOWER_UP") && flags.contains(&"NOARP"), "{flags:?}");
        assert!(!flags.contains(&"MULTICAST"), "{flags:?}");
        assert_eq!(link["mtu"], 1472);
        assert_eq!(link["inet6_addr_gen_mode"], "none");
        assert_eq!(ip("route show 10.5.0.0/16").trim(), "10.5.0.0/16 dev flannel0 scope link");
        let features = crate::namespace::run("ethtool", "--show-features flannel0");
        assert!(features.contains("tcp-segmentation-offload: on"), "{features}");

        // Nothing that nobody asked for: one sent packet, and it is this one.
        let _ = UdpSocket::bind("10.5.68.0:0").unwrap().send_to(b"x", "10.5.7.7:9");
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(ip_json("-statistics link show flannel0")[0]["stats64"]["tx"]["packets"], 1);
        assert_eq!(device.mtu, 1472);
    });
}

#[test]
fn udp_device_is_kept() {
    on_host(async |netlink, _| {
        let first = netlink.ensure_udp_device(1472).await.unwrap();
        ip("address add 10.5.68.0/32 dev flannel0");
        assert_eq!(netlink.ensure_udp_device(1472).await.unwrap(), first);
        assert_eq!(netlink.ensure_udp_device(1400).await.unwrap().mtu, 1400);
        assert_eq!(ip_json("address show flannel0")[0]["addr_info"][0]["local"], "10.5.68.0");
    });
}

#[rstest::rstest]
#[case::tun_of_a_stock_daemon(&["tuntap add flannel0 mode tun"], "is a tun device", "stop the flanneld")]
#[case::bridge_with_a_port(
    &["link add flannel0 type bridge", "link set flannel0 arp off", "link set eth0-wire master flannel0"],
    "is a bridge", "ip link delete flannel0"
)]
#[case::bridge_of_somebody(&["link add flannel0 type bridge"], "is a bridge", "ip link delete flannel0")]
fn udp_device_of_somebody_else_is_refused(#[case] setup: &[&str], #[case] kind: &str, #[case] remedy: &str) {
    on_host(async |netlink, _| {
        setup.iter().for_each(|command| drop(ip(command)));
        let error = netlink.ensure_udp_device(1472).await.unwrap_err().to_string();
        assert!(error.contains(kind) && error.contains(remedy), "{error}");
        assert!(matches!(netlink.remove_device("flannel0").await, Err(DeviceError::Foreign { .. })));
    });
}

#[test]
fn own_devices_are_removed_and_others_stay() {
    on_host(async |netlink, underlay| {
        netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        netlink.ensure_udp_device(1472).await.unwrap();
        for name in ["flannel.1", "flannel0"] {
            assert!(netlink.remove_device(name).await.unwrap(), "{name}");
            assert!(!netlink.remove_device(name).await.unwrap(), "{name} again");
        }
        assert!(matches!(netlink.remove_device("eth0").await, Err(DeviceError::Foreign { .. })));
        assert!(netlink.link("eth0").await.unwrap().is_some());
    });
}

#[test]
fn other_addresses_inside_the_network_are_removed() {
    on_host(async |netlink, underlay| {
        let device = netlink.ensure_vxlan(&spec(&underlay)).await.unwrap();
        for address in ["10.5.99.0/32", "10.5.18.1/24", "172.16.0.1/32"] {
            ip(&format!("address add {address} dev flannel.1"));
        }
        for _ in 0..2 {
            let (own, network) = (Ipv4Addr::new(10, 5, 18, 0).into(), "10.5.0.0/16".parse().unwrap());
            netlink.ensure_address(&device, own, network).await.unwrap();
            let shown = ip("-brief -4 address show flannel.1");
            let addresses: Vec<&str> = shown.split_whitespace().skip(2).collect();
            assert_eq!(addresses, ["172.16.0.1/32", "10.5.18.0/32"]);
        }
        assert_eq!(ip_json("-4 address show flannel.1")[0]["addr_info"][1]["scope"], "global");
    });
}

#[test]
fn address_of_a_device_that_is_gone_is_an_error() {
    on_host(async |netlink, _| {
        let gone = super::Device {
            name: "flannel.1".to_owned(),
            index: 4711,
            mac: Mac::ZERO,
            mtu: 1450,
            segmenter: None,
        };
        let own = Ipv4Addr::new(10, 5, 18, 0).into();
        let error = netlink.ensure_address(&gone, own, "10.5.0.0/16".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot give interface flannel.1 the address 10.5.18.0/32");
    });
}

#[test]
fn the_segmenter_promises_nothing_where_packets_go_in() {
    on_host(async |netlink, _| {
        let segmenter = netlink.ensure_segmenter(1472).await.unwrap();
        assert_eq!(netlink.ensure_segmenter(1400).await.unwrap(), segmenter);
        let features = crate::namespace::run("ethtool", "--show-features flannel0-in");
        for promise in ["tx-checksumming", "tx-tcp-segmentation", "tx-udp-segmentation"] {
            assert!(features.contains(&format!("{promise}: off")), "{features}");
        }
        assert_eq!(ip_json("-details link show flannel0-in")[0]["gso_max_segs"], 1);
        for end in ["flannel0-in", "flannel0-out"] {
            let link = &ip_json(&format!("link show {end}"))[0];
            assert_eq!(
                (&link["mtu"], &link["inet6_addr_gen_mode"]),
                (&1400.into(), &"none".into()),
                "{link}"
            );
            let flags = link["flags"].to_string();
            assert!(flags.contains("\"LOWER_UP\"") && flags.contains("\"NOARP\""), "{flags}");
        }
        assert!(netlink.remove_segmenter().await.unwrap());
        assert!(!netlink.remove_segmenter().await.unwrap());
        ip("link add flannel0-out type bridge");
        let error = netlink.ensure_segmenter(1472).await.unwrap_err().to_string();
        assert!(error.contains("flannel0-out is a bridge"), "{error}");
    });
}

/// One after the other, while they are up.
#[test]
fn the_device_of_a_former_port_makes_room_and_comes_back() {
    on_host(async |netlink, underlay| {
        let before = spec(&underlay);
        let first = netlink.ensure_vxlan(&before).await.unwrap();
        let after = VxlanSpec { port: 4789, mac: Some(first.mac), ..before.clone() };
        let aside = |spec: &VxlanSpec| VxlanSpec { steps_aside: true, mac: Some(first.mac), ..spec.clone() };
        for _ in 0..2 {
            let former = netlink.keep_former(&aside(&before), &after).await.unwrap();
            assert_eq!((former.index, former.name.as_str()), (first.index, "flannel-former"));
            let second = netlink.ensure_vxlan(&after).await.unwrap();
            assert_ne!(second.index, first.index);
            assert_eq!((second.name.as_str(), second.mac), ("flannel.1", first.mac));
        }
        let second = netlink.ensure_vxlan(&after).await.unwrap();
        let former = netlink.keep_former(&aside(&after), &before).await.unwrap();
        assert_eq!((former.index, former.name.as_str()), (second.index, "flannel-former"));
        assert_eq!(netlink.ensure_vxlan(&before).await.unwrap(), first, "changed back");
        // A daemon was killed while they changed places.
        ip("link set flannel.1 name flannel-between");
        let former = netlink.keep_former(&aside(&after), &before).await.unwrap();
        assert_eq!(former.index, second.index);
        assert_eq!(netlink.ensure_vxlan(&before).await.unwrap(), first);
        assert!(netlink.remove_device("flannel-former").await.unwrap());
        assert_eq!(netlink.ensure_vxlan(&before).await.unwrap(), first);
    });
}
