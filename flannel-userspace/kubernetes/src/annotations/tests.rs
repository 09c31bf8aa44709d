use std::net::Ipv4Addr;

use flannel_model::family::{Addresses, PerFamily};
use flannel_model::lease::{Attributes, Data};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::{Annotations, Prefix, PrefixError};

fn stock() -> Prefix {
    "flannel.alpha.coreos.com".parse().unwrap()
}

fn annotations(given: &[(&str, &str)]) -> Annotations {
    given
        .iter()
        .map(|(name, value)| (format!("flannel.alpha.coreos.com/{name}"), (*value).to_owned()))
        .collect()
}

fn attributes(backend_type: Option<&str>, data: Option<&serde_json::Value>) -> Attributes {
    Attributes {
        public: Ipv4Addr::new(192, 168, 77, 11).into(),
        backend_type: backend_type.map(str::to_owned),
        backend_data: PerFamily { v4: data.map(Data::from), v6: None },
    }
}

#[rstest]
#[case("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/")]
#[case("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/")]
#[case("flannel.alpha.coreos.com/custom", "flannel.alpha.coreos.com/custom-")]
#[case("flannel.alpha.coreos.com/custom-", "flannel.alpha.coreos.com/custom-")]
#[case("a.b", "a.b/")]
#[case("a-1.b_2/c_3", "a-1.b_2/c_3-")]
fn a_prefix_is_completed(#[case] given: &str, #[case] prefix: &str) {
    assert_eq!(given.parse::<Prefix>().unwrap().to_string(), prefix);
}

#[rstest]
#[case("a.b/c/d", PrefixError::Slashes)]
#[case("a.b//", PrefixError::Slashes)]
#[case("", PrefixError::Format)]
#[case("flannel", PrefixError::Format)]
#[case("flannel/", PrefixError::Format)]
#[case("/flannel", PrefixError::Format)]
#[case(".b/c", PrefixError::Format)]
#[case("a..b/c", PrefixError::Format)]
#[case("a.b/C", PrefixError::Format)]
#[case("A.b/c", PrefixError::Format)]
#[case("a.b/c d", PrefixError::Format)]
#[case("a.b/-", PrefixError::Format)]
fn no_prefix(#[case] given: &str, #[case] error: PrefixError) {
    assert_eq!(given.parse::<Prefix>(), Err(error));
}

#[rstest]
#[case::vxlan(
    attributes(Some("vxlan"), Some(&json!({"VNI": 1, "VtepMAC": "12:c6:65:89:b4:e3"}))),
    &[
        ("backend-data", r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#),
        ("backend-type", "vxlan"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.77.11"),
    ]
)]
#[case::host_gw(
    attributes(Some("host-gw"), None),
    &[
        ("backend-data", "null"),
        ("backend-type", "host-gw"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.77.11"),
    ]
)]
#[case::udp(
    attributes(None, None),
    &[("backend-data", "null"), ("backend-type", ""), ("kube-subnet-manager", "true"), ("public-ip", "192.168.77.11")]
)]
#[case::host_gw_of_both(
    Attributes {
        public: Addresses { v4: Some(Ipv4Addr::new(192, 168, 77, 11)), v6: Some("fd77::11".parse().unwrap()) },
        ..attributes(Some("host-gw"), None)
    },
    &[
        ("backend-data", "null"),
        ("backend-type", "host-gw"),
        ("backend-v6-data", "null"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.77.11"),
        ("public-ipv6", "fd77::11"),
    ]
)]
#[case::host_gw_of_ipv6(
    Attributes {
        public: Addresses { v4: None, v6: Some("fd77::11".parse().unwrap()) },
        ..attributes(Some("host-gw"), None)
    },
    &[
        ("backend-data", "null"),
        ("backend-type", "host-gw"),
        ("backend-v6-data", "null"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "0.0.0.0"),
        ("public-ipv6", "fd77::11"),
    ]
)]
#[case::vxlan_of_ipv6(
    Attributes {
        public: Addresses { v4: None, v6: Some("fd77::11".parse().unwrap()) },
        backend_data: PerFamily { v4: None, v6: Some((&json!({"VNI": 1, "VtepMAC": "12:c6:65:89:b4:e3"})).into()) },
        ..attributes(Some("vxlan"), None)
    },
    &[
        ("backend-type", "vxlan"),
        ("backend-v6-data", r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#),
        ("kube-subnet-manager", "true"),
        ("public-ipv6", "fd77::11"),
    ]
)]
fn what_stock_flannel_writes(#[case] attributes: Attributes, #[case] written: &[(&str, &str)]) {
    let written = annotations(written);
    assert_eq!(stock().changes(&Annotations::new(), &attributes), written);
    assert_eq!(stock().changes(&written, &attributes), Annotations::new(), "nothing differs");
    let (read, junk) = stock().read(&written);
    assert!(stock().is_managed(&written) && junk.is_empty());
    assert_eq!(read, attributes);
}

#[test]
fn only_what_differs_is_written() {
    let mut there = annotations(&[
        ("backend-data", r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#),
        ("backend-type", "vxlan"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.77.12"),
        ("public-ip-overwrite", "203.0.113.9"),
    ]);
    there.insert("other".to_owned(), "x".to_owned());
    let own = attributes(Some("vxlan"), Some(&json!({"VNI": 1, "VtepMAC": "12:c6:65:89:b4:e3"})));
    assert_eq!(stock().changes(&there, &own), annotations(&[("public-ip", "192.168.77.11")]));
    assert_eq!(stock().select(there.clone()).len(), 5, "the others are nobody's business");
    assert_eq!(stock().overwrites(&there), Ipv4Addr::new(203, 0, 113, 9).into());
    assert_eq!(stock().vtep_macs(&there).v4.unwrap().to_string(), "12:c6:65:89:b4:e3");
}

#[rstest]
#[case(
    "public-ip",
    "192.168.77",
    "annotation flannel.alpha.coreos.com/public-ip is no IPv4 address: 192.168.77"
)]
#[case("public-ip", "fd00::1", "annotation flannel.alpha.coreos.com/public-ip is no IPv4 address: fd00::1")]
#[case("backend-data", "{", "annotation flannel.alpha.coreos.com/backend-data is no JSON: {")]
fn junk_is_named(#[case] name: &str, #[case] value: &str, #[case] text: &str) {
    let (_, junk) = stock().read(&annotations(&[(name, value)]));
    assert_eq!(junk.v4.unwrap().to_string(), text);
    assert!(junk.v6.is_none(), "the other family is not concerned");
}

#[test]
fn junk_of_ipv6_leaves_ipv4_as_it_is() {
    let (attributes, junk) = stock().read(&annotations(&[
        ("backend-type", "vxlan"),
        ("backend-data", r#"{"VtepMAC":"12:c6:65:89:b4:e3"}"#),
        ("public-ip", "192.168.77.11"),
        ("public-ipv6", "junk"),
        ("backend-v6-data", "junk"),
    ]));
    assert_eq!(attributes.public, Ipv4Addr::new(192, 168, 77, 11).into());
    assert!(attributes.backend_data.v4.is_some());
    assert!(junk.v4.is_none() && junk.v6.is_some());
}

proptest! {
    #[test]
    fn any_annotations_are_read(values in prop::collection::vec(".{0,64}", 6)) {
        let names = ["backend-data", "backend-v6-data", "public-ip", "public-ipv6", "backend-type", "public-ip-overwrite"];
        let given: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        let annotations = annotations(&given);
        let _ = (stock().read(&annotations), stock().overwrites(&annotations), stock().vtep_macs(&annotations));
    }
}
