use flannel_common::Vni;
use flannel_common::flow::Bypass;
use flannel_common::maps::Guard;
use flannel_control::backend;
use flannel_control::kernel::{Kernel as _, KernelError};
use flannel_control::reconcile::Prepared;
use flannel_datapath::{HookChoice, ProgramSettings};
use flannel_model::config::backend::{BackendConfig, UdpConfig, VxlanConfig};
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::device::DeviceSpec;
use flannel_model::family::{Family, PerFamily};
use flannel_model::object::Object;
use flannel_net::Netlink;
use flannel_net::namespace::{ip, ip_json, on_host};
use flannel_observe::Conditions;
use rstest::rstest;

use super::{Host, Settings};

const UDP: BackendConfig = BackendConfig::Udp(UdpConfig { port: 8285, direct_routing: false });

fn vxlan() -> BackendConfig {
    let vni = Vni::new(1).unwrap();
    BackendConfig::Vxlan(VxlanConfig { vni, port: 8472, mtu: None, direct_routing: false })
}

/// A host without programs.
fn host() -> Host {
    Host::open(
        Netlink::open().unwrap(),
        Settings {
            interface: InterfaceOptions { iface: vec!["eth0".to_owned()], ..InterfaceOptions::default() },
            pins: None,
            hook: HookChoice::default(),
            program_settings: ProgramSettings::default(),
            guard: Guard::Strict,
            bypass: Bypass::Off,
            copy_dscp: false,
            pod_bridges: Vec::new(),
            policy_limitation: Conditions::default().limitation("policies"),
        },
    )
    .unwrap()
}

/// Runs `test` on a host, with the specification of that backend's device.
fn with_device(config: &BackendConfig, test: impl AsyncFnOnce(Host, DeviceSpec) + Send) {
    on_host(async |_, underlay| {
        let spec = backend::of(config).device(&underlay, Family::V4).unwrap();
        test(host(), spec).await;
    });
}

#[rstest]
#[case::vxlan(vxlan(), "flannel.1", 1450)]
#[case::udp(UDP, "flannel0", 1472)]
fn the_device_has_its_mtu_and_the_first_address(
    #[case] config: BackendConfig,
    #[case] name: &str,
    #[case] mtu: u32,
) {
    with_device(&config, async |mut host, spec| {
        let device = host.ensure_device(&spec).await.unwrap();
        assert_eq!(host.find_device(&spec).await.unwrap(), Some(device.clone()));
        assert_eq!(ip_json(&format!("link show {name}"))[0]["mtu"], mtu);
        let (own, network) = ("10.5.18.0".parse().unwrap(), "10.5.0.0/16".parse().unwrap());
        host.ensure_address(&device, own, network).await.unwrap();
        let address = &ip_json(&format!("-4 address show {name}"))[0]["addr_info"][0];
        assert_eq!((&address["local"], &address["prefixlen"]), (&"10.5.18.0".into(), &32.into()));
        assert_eq!(address["scope"], "global");
    });
}

#[rstest]
#[case::vxlan(vxlan(), "flannel.1")]
#[case::udp(UDP, "flannel0")]
fn a_deleted_device_is_made_again(#[case] config: BackendConfig, #[case] name: &str) {
    with_device(&config, async |mut host, spec| {
        let before = host.ensure_device(&spec).await.unwrap();
        assert_eq!(host.ensure_device(&spec).await.unwrap(), before, "one that is there stays");
        ip(&format!("link delete {name}"));
        assert_eq!(host.find_device(&spec).await.unwrap(), None);
        let after = host.ensure_device(&spec).await.unwrap();
        assert_ne!(after.index, before.index);
        assert_eq!(after.mtu, before.mtu);
    });
}

#[test]
fn a_vxlan_device_keeps_the_published_address() {
    with_device(&vxlan(), async |mut host, spec| {
        let published = host.ensure_device(&spec).await.unwrap().mac;
        let spec = spec.with_mac(published);
        ip("link delete flannel.1");
        assert_eq!(host.ensure_device(&spec).await.unwrap().mac, published);
        ip("link set flannel.1 address 02:00:00:00:00:01");
        assert_eq!(host.ensure_device(&spec).await.unwrap().mac, published);
    });
}

#[rstest]
#[case::new(true)]
#[case::existing(false)]
fn a_former_address_is_for_a_new_device(#[case] is_new: bool) {
    let former = flannel_common::Mac([2, 0, 0, 0, 0, 1]);
    on_host(async |_, underlay| {
        let mut host = host();
        let spec = backend::of(&vxlan()).device(&underlay, Family::V4).unwrap();
        let existing = if is_new { None } else { Some(host.ensure_device(&spec).await.unwrap().mac) };
        let prepared =
            Prepared::new(host, backend::of(&vxlan()), underlay, PerFamily::only_v4(former)).await.unwrap();
        let mac = prepared.links().devices.v4.as_ref().unwrap().mac;
        assert_eq!(mac, existing.unwrap_or(former));
    });
}

#[test]
fn an_object_on_no_device_is_told_from_other_refusals() {
    on_host(async |_, _| {
        let mut host = host();
        let subnet = "10.5.78.0/24".parse().unwrap();
        let nowhere = Object::Route { subnet, via: None, device: 4711, onlink: false };
        let refused = host.put(&[nowhere]).await;
        assert!(matches!(refused[..], [(_, KernelError::MissingDevice(_))]), "{refused:?}");
    });
}

#[test]
fn without_an_underlay_there_is_a_reason() {
    on_host(async |_, underlay| {
        let mut host = host();
        assert_eq!(host.underlay(None).await.unwrap(), underlay);
        ip("address flush dev eth0");
        let error = host.underlay(Some(&underlay)).await.unwrap_err();
        assert_eq!(error.to_string(), "the underlay is gone; waiting for it");
    });
}
