use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use proptest::prelude::*;
use rstest::rstest;

use super::{FamilyConfig, NetworkConfig};

fn parse(json: &str) -> NetworkConfig {
    NetworkConfig::parse(json).unwrap()
}

/// Length, first and last of the IPv4 subnets.
fn cut(config: &NetworkConfig) -> (u8, IpAddr, IpAddr) {
    let FamilyConfig { subnet_len, subnet_min, subnet_max, .. } = config.families.v4.unwrap();
    (subnet_len, subnet_min, subnet_max)
}

fn refusal(json: &str) -> String {
    NetworkConfig::parse(json).unwrap_err().to_string()
}

#[rstest]
#[case::sixteen("10.3.0.0/16", "10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0")]
#[case::eight("10.0.0.0/8", "10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")]
#[case::largest_with_24("10.5.0.0/22", "10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0")]
#[case::quartered("10.5.0.0/23", "10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128")]
#[case::quartered_24("10.5.6.0/24", "10.5.6.0/24", 26, "10.5.6.64", "10.5.6.192")]
#[case::smallest("10.5.6.16/28", "10.5.6.16/28", 30, "10.5.6.20", "10.5.6.28")]
#[case::host_bits("10.5.3.7/16", "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")]
#[case::end_of_space("255.255.0.0/16", "255.255.0.0/16", 24, "255.255.1.0", "255.255.255.0")]
#[case::half_of_everything("128.0.0.0/1", "128.0.0.0/1", 24, "128.0.1.0", "255.255.255.0")]
fn defaults_follow_from_the_network(
    #[case] text: &str,
    #[case] network: &str,
    #[case] subnet_len: u8,
    #[case] min: IpAddr,
    #[case] max: IpAddr,
) {
    let config = parse(&format!(r#"{{"network":"{text}"}}"#));
    assert_eq!(config.networks().to_string(), network);
    assert_eq!(cut(&config), (subnet_len, min, max));
    assert!(!config.enable_nftables);
    assert_eq!(config.backend.kind, "udp");
}

#[rstest]
#[case::subnet_len(r#"{"Network":"10.3.0.0/16","SubnetLen":28}"#, 28, "10.3.0.16", "10.3.255.240")]
#[case::min(
    r#"{"Network":"10.3.0.0/16","SubnetLen":28,"SubnetMin":"10.3.5.0"}"#,
    28,
    "10.3.5.0",
    "10.3.255.240"
)]
#[case::min_and_max(
    r#"{"Network":"10.3.0.0/16","SubnetLen":28,"SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0"}"#,
    28,
    "10.3.5.0",
    "10.3.8.0"
)]
#[case::first_subnet_when_asked_for(
    r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.0.0"}"#,
    24,
    "10.3.0.0",
    "10.3.255.0"
)]
#[case::one_subnet_only(
    r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.7.0","SubnetMax":"10.3.7.0"}"#,
    24,
    "10.3.7.0",
    "10.3.7.0"
)]
#[case::min_above_max_is_left_to_the_allocator(
    r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.9.0","SubnetMax":"10.3.7.0"}"#,
    24,
    "10.3.9.0",
    "10.3.7.0"
)]
#[case::zero_is_absent(
    r#"{"Network":"10.3.0.0/16","SubnetLen":0,"SubnetMin":"0.0.0.0","SubnetMax":"0.0.0.0"}"#,
    24,
    "10.3.1.0",
    "10.3.255.0"
)]
#[case::large_network(
    r#"{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0",
        "Backend":{"Type":"udp","Port":7890}}"#,
    20,
    "10.10.0.0",
    "10.99.0.0"
)]
fn given_values_override_defaults(
    #[case] json: &str,
    #[case] subnet_len: u8,
    #[case] min: IpAddr,
    #[case] max: IpAddr,
) {
    let config = parse(json);
    assert_eq!(cut(&config), (subnet_len, min, max));
}

#[rstest]
#[case::lower(r#"{"network":"10.5.0.0/16","subnetlen":26,"enablenftables":true,"backend":{"type":"VXLAN"}}"#)]
#[case::upper(r#"{"NETWORK":"10.5.0.0/16","SUBNETLEN":26,"ENABLENFTABLES":true,"BACKEND":{"TYPE":"vxlan"}}"#)]
#[case::unknown_keys(
    r#"{"Network":"10.5.0.0/16","SubnetLen":26,"EnableNFTables":true,"Backend":{"Type":"vxlan","X":[]},"Y":{}}"#
)]
#[case::last_duplicate_wins(
    r#"{"Network":"10.9.0.0/16","network":"10.5.0.0/16","SubnetLen":30,"SubnetLen":26,"EnableNFTables":true,
        "Backend":{"Type":"udp","type":"vxlan"}}"#
)]
#[case::later_null_changes_nothing(
    r#"{"Network":"10.5.0.0/16","SubnetLen":26,"SubnetLen":null,"EnableNFTables":true,"EnableNFTables":null,
        "EnableIPv4":null,"Backend":{"Type":"vxlan"}}"#
)]
fn keys_are_read_as_by_go(#[case] json: &str) {
    let config = parse(json);
    assert_eq!(config.networks().to_string(), "10.5.0.0/16");
    assert_eq!(config.families.v4.unwrap().subnet_len, 26);
    assert!(config.enable_nftables);
    assert_eq!(config.backend.kind, "vxlan");
}

#[rstest]
#[case::no_network("{}", "please define a correct Network parameter in the flannel config")]
#[case::null("null", "please define a correct Network parameter in the flannel config")]
#[case::everything(r#"{"Network":"0.0.0.0/0"}"#, "please define a correct Network parameter")]
#[case::no_length(r#"{"Network":"10.5.0.0"}"#, "invalid CIDR address: 10.5.0.0:")]
#[case::null_network(r#"{"Network":null}"#, "invalid CIDR address: null:")]
#[case::number(r#"{"Network":10}"#, "invalid CIDR address: 10:")]
#[case::ipv6_network(r#"{"Network":"fc00::/48"}"#, "invalid CIDR address: fc00::/48:")]
#[case::too_small(
    r#"{"Network":"10.5.0.0/29"}"#,
    "network is too small. Minimum useful network prefix is /28: Network is 10.5.0.0/29"
)]
#[case::one_address(r#"{"Network":"10.5.0.0/32"}"#, "network is too small. Minimum useful")]
#[case::subnet_len_31(
    r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#,
    "SubnetLen must be less than /31: SubnetLen is 31"
)]
#[case::subnet_len_huge(r#"{"Network":"10.5.0.0/16","SubnetLen":4000000000}"#, "SubnetLen must be less than")]
#[case::subnet_len_before_size(r#"{"Network":"10.5.0.0/29","SubnetLen":32}"#, "SubnetLen must be less than")]
#[case::subnet_len_short(
    r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#,
    "network must be able to accommodate at least four subnets: SubnetLen is 17 and Network is 10.5.0.0/16: \
     set SubnetLen to 18"
)]
#[case::subnet_len_in_small_network(
    r#"{"Network":"10.5.0.0/29","SubnetLen":30}"#,
    "network must be able to accommodate at least four subnets"
)]
#[case::subnet_len_text(r#"{"Network":"10.5.0.0/16","SubnetLen":"24"}"#, "SubnetLen is \"24\"; give a whole")]
#[case::subnet_len_negative(r#"{"Network":"10.5.0.0/16","SubnetLen":-1}"#, "SubnetLen is -1; give a whole")]
#[case::min_outside(
    r#"{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}"#,
    "SubnetMin is not in the range of the Network: SubnetMin is 10.6.0.0 and Network is 10.5.0.0/16"
)]
#[case::max_outside(
    r#"{"Network":"10.5.0.0/16","SubnetMax":"10.4.255.0"}"#,
    "SubnetMax is not in the range of the Network: SubnetMax is 10.4.255.0 and Network is 10.5.0.0/16"
)]
#[case::min_off_boundary(
    r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.16"}"#,
    "SubnetMin is not on a SubnetLen boundary: 10.5.1.16: the /24 around it starts at 10.5.1.0"
)]
#[case::max_off_boundary(
    r#"{"Network":"10.5.0.0/16","SubnetLen":28,"SubnetMax":"10.5.1.17"}"#,
    "SubnetMax is not on a SubnetLen boundary: 10.5.1.17: the /28 around it starts at 10.5.1.16"
)]
#[case::min_no_address(
    r#"{"Network":"10.5.0.0/16","SubnetMin":"ten"}"#,
    "invalid IP address format: ten: set SubnetMin"
)]
#[case::max_ipv6(
    r#"{"Network":"10.5.0.0/16","SubnetMax":"::1"}"#,
    "invalid IP address format: ::1: set SubnetMax"
)]
#[case::no_stack(r#"{"Network":"10.5.0.0/16","EnableIPv4":false}"#, "none defined stack")]
#[case::dual_stack(
    r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}"#,
    "IPv6 is not served yet"
)]
#[case::ipv6_only(
    r#"{"enableIPv6":true,"ipv6Network":"fc00::/48","enableIPv4":false}"#,
    "IPv6 is not served yet"
)]
#[case::enable_as_text(
    r#"{"Network":"10.5.0.0/16","EnableIPv6":"no"}"#,
    "EnableIPv6 is \"no\"; give true or false"
)]
#[case::backend_text(
    r#"{"Network":"10.5.0.0/16","Backend":"vxlan"}"#,
    "error decoding Backend property of config"
)]
#[case::backend_list(
    r#"{"Network":"10.5.0.0/16","Backend":[]}"#,
    "error decoding Backend property of config"
)]
#[case::backend_type_number(
    r#"{"Network":"10.5.0.0/16","Backend":{"Type":1}}"#,
    "error decoding Backend property of config: Type is 1; give a string"
)]
#[case::empty("", "the network configuration is not a JSON object")]
#[case::array("[]", "the network configuration is not a JSON object")]
#[case::cut_off(r#"{"Network":"10.5.0.0/16""#, "the network configuration is not a JSON object")]
fn a_bad_configuration_is_refused_with_its_reason(#[case] json: &str, #[case] message: &str) {
    let refusal = refusal(json);
    assert!(refusal.contains(message), "{refusal}");
}

#[rstest]
#[case::no_stack(r#"{"EnableIPv4":false}"#, true)]
#[case::ipv6(r#"{"EnableIPv6":true}"#, true)]
#[case::no_network("{}", false)]
#[case::no_json("", false)]
fn only_a_missing_stack_is_final(#[case] json: &str, #[case] expected: bool) {
    assert_eq!(NetworkConfig::parse(json).unwrap_err().is_final(), expected);
}

#[rstest]
#[case::absent(r#"{"Network":"10.5.0.0/16"}"#, "udp")]
#[case::without_type(r#"{"Network":"10.5.0.0/16","Backend":{}}"#, "")]
#[case::null(r#"{"Network":"10.5.0.0/16","Backend":null}"#, "")]
#[case::mixed_case(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"Host-GW"}}"#, "host-gw")]
fn the_type_of_the_backend_in_lower_case(#[case] json: &str, #[case] kind: &str) {
    assert_eq!(parse(json).backend.kind, kind);
}

#[test]
fn a_huge_value_makes_no_huge_message() {
    let json = format!(r#"{{"Network":"{}"}}"#, "x".repeat(1_000_000));
    assert!(refusal(&json).len() < 300);
}

/// A JSON value of any shape.
fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        (any::<Ipv4Addr>(), 0..40u8).prop_map(|(addr, len)| format!("{addr}/{len}").into()),
        any::<Ipv4Addr>().prop_map(|addr| addr.to_string().into()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(known_key(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn known_key() -> impl Strategy<Value = String> {
    let keys = ["Network", "SubnetLen", "SubnetMin", "SubnetMax", "EnableIPv4", "Backend", "Type", "x"];
    prop::sample::select(keys.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(json in any::<String>()) {
        let _ = NetworkConfig::parse(&json);
    }

    #[test]
    fn arbitrary_json_never_panics(values in prop::collection::btree_map(known_key(), json_value(), 0..8)) {
        let json = serde_json::to_string(&values).unwrap();
        let _ = NetworkConfig::parse(&json);
    }

    /// Whatever is accepted has at least four subnets of at least four addresses, and its bounds are
    /// first addresses of subnets of it.
    #[test]
    fn what_is_accepted_is_sound(addr in any::<Ipv4Addr>(), len in 0..=32u8, subnet_len in 0..=33u32) {
        let json = format!(r#"{{"Network":"{addr}/{len}","SubnetLen":{subnet_len}}}"#);
        if let Ok(config) = NetworkConfig::parse(&json) {
            let (network, (subnet_len, min, max)): (Ipv4Network, _) = (config.networks().v4.unwrap(), cut(&config));
            let size = 1u64 << (32 - subnet_len);
            prop_assert!(size >= 4);
            prop_assert!(u64::from(network.size()) / size >= 4);
            prop_assert_eq!(network.network(), network.ip());
            prop_assert!(min < max);
            for bound in [min, max] {
                let IpAddr::V4(bound) = bound else { panic!("{bound} is not of IPv4") };
                prop_assert!(network.contains(bound));
                prop_assert_eq!(u64::from(bound.to_bits()) % size, 0);
            }
        }
    }
}
