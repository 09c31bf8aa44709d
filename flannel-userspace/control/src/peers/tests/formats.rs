//! Leases of hosts that go over from one format of VXLAN to another.

use flannel_common::Vni;
use flannel_model::backend::Kind;
use flannel_model::vxlan::{Formats, VxlanFormat};
use rstest::rstest;

use super::{peers, put, refused, site};
use crate::peers::PeerTable;

const KEY: &str = "10.5.24.0-24";
const BEFORE: VxlanFormat = VxlanFormat { vni: Vni::new(1).unwrap(), port: 8472 };
const OTHER_VNI: VxlanFormat = VxlanFormat { vni: Vni::new(7).unwrap(), port: 8472 };
const OTHER_PORT: VxlanFormat = VxlanFormat { vni: Vni::new(1).unwrap(), port: 4789 };

/// A lease whose backend data is this.
fn saying(data: &str) -> String {
    format!(
        r#"{{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{{data}"VtepMAC":"fa:36:2c:5b:b0:c7"}}}}"#
    )
}

fn going_over(to: VxlanFormat) -> (PeerTable, Formats) {
    let formats = Formats::only(BEFORE).toward(to);
    let mut table = PeerTable::new(site(Kind::Vxlan));
    assert!(!table.go_over(formats), "nothing was refused before");
    (table, formats)
}

#[rstest]
#[case::before(r#""VNI":1,"#, BEFORE)]
#[case::gone_over(r#""VNI":7,"#, OTHER_VNI)]
#[case::of_2017("", BEFORE)]
fn either_identifier_is_accepted(#[case] data: &str, #[case] takes: VxlanFormat) {
    let (mut table, formats) = going_over(OTHER_VNI);
    table.apply_event(&put(KEY, &saying(data), 5));
    assert_eq!(peers(&table).iter().map(|peer| peer.format(formats)).collect::<Vec<_>>(), [takes]);
}

#[test]
fn a_host_that_has_gone_over_earlier_is_examined_again() {
    let mut table = PeerTable::new(site(Kind::Vxlan));
    table.apply_event(&put(KEY, &saying(r#""VNI":1,"#), 5));
    table.apply_event(&put(KEY, &saying(r#""VNI":7,"#), 6));
    assert_eq!(refused(&table), [(KEY.to_owned(), "vni")], "this host has not heard of it");
    assert_eq!(peers(&table).len(), 1, "and sends as before");
    assert!(table.go_over(Formats::only(BEFORE).toward(OTHER_VNI)), "the leases are to be listed");
    table.go_over(Formats::only(OTHER_VNI));
    table.apply_event(&put("10.5.25.0-24", &saying(r#""VNI":1,"#).replace("77.12", "77.13"), 7));
    assert_eq!(refused(&table).len(), 2, "the former one is over");
}

#[test]
fn a_port_that_a_lease_no_longer_names_is_remembered_until_all_have_gone_over() {
    let (mut table, formats) = going_over(OTHER_PORT);
    let takes = |table: &PeerTable| peers(table)[0].format(formats);
    table.apply_event(&put(KEY, &saying(r#""VNI":1,"#), 5));
    assert_eq!(takes(&table), BEFORE);
    table.apply_event(&put(KEY, &saying(r#""Port":4789,"VNI":1,"#), 6));
    assert_eq!(takes(&table), OTHER_PORT);
    table.apply_event(&put(KEY, &saying(r#""VNI":1,"#), 7));
    assert_eq!(takes(&table), OTHER_PORT, "it has given the former one up before this host");
    table.apply_event(&put(KEY, &saying(r#""VNI":1,"#).replace("c7", "c8"), 8));
    assert_eq!(takes(&table), BEFORE, "another device says nothing of that");
    table.apply_event(&put(KEY, &saying(r#""Port":4789,"VNI":1,"#), 9));
    table.go_over(Formats::only(OTHER_PORT));
    assert_eq!(peers(&table)[0].heard, None);
}

#[test]
fn what_is_heard_decides_where_the_lease_does_not() {
    let (mut table, formats) = going_over(OTHER_PORT);
    let subnet = "10.5.24.0/24".parse().unwrap();
    table.apply_event(&put(KEY, &saying(r#""VNI":1,"#), 5));
    assert!(table.hear([("10.5.99.0/24".parse().unwrap(), OTHER_PORT)]).is_empty(), "nobody's");
    let diff = table.hear([(subnet, OTHER_PORT)]);
    assert_eq!(diff.changed.len(), 1);
    assert_eq!(peers(&table)[0].format(formats), OTHER_PORT);
    assert!(table.hear([(subnet, OTHER_PORT)]).is_empty(), "it is known");
    table.hear([(subnet, BEFORE)]);
    assert_eq!(peers(&table)[0].format(formats), BEFORE, "the last packet counts");
    table.apply_event(&put(KEY, &saying(r#""Port":4789,"VNI":1,"#), 6));
    table.hear([(subnet, BEFORE)]);
    assert_eq!(
        peers(&table)[0].format(formats),
        OTHER_PORT,
        "it takes both, and sends in what its peer takes"
    );
}
