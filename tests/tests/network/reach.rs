//! Everybody reaches everybody.

use flannel_tests::cluster::{Cluster, Plan, check_reached, pairs};
use rstest::rstest;

#[rstest]
#[case::udp(r#"{"Type":"udp"}"#)]
#[case::vxlan(r#"{"Type":"vxlan"}"#)]
#[case::host_gw(r#"{"Type":"host-gw"}"#)]
fn pods_reach_each_other(#[case] backend: &str) {
    let cluster = Cluster::start(&Plan::new(backend)).unwrap();
    check_reached(&pairs(&cluster.nodes())).unwrap();
    println!("{}", cluster.members[0].daemon.ctl("status").unwrap());
    println!("{}", cluster.members[0].daemon.ctl("peers").unwrap());
    println!("{}", cluster.members[0].daemon.ctl("counters").unwrap());
}
