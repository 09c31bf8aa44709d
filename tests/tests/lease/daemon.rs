//! How the daemon handles leases.

use std::fs;
use std::path::PathBuf;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::Place;
use rstest::rstest;

fn one_host(config: &str) -> Cluster {
    let plan = Plan { config: config.to_owned(), places: vec![Place::Near], ..Plan::new("{}") };
    Cluster::start(&plan).unwrap()
}

fn backend(kind: &str) -> String {
    format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"Type":"{kind}"}}}}"#)
}

#[rstest]
#[case::udp("udp", "")]
#[case::vxlan("vxlan", r#","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%"}"#)]
#[case::host_gw("host-gw", r#","BackendType":"host-gw""#)]
#[case::alloc("alloc", "")]
fn key_and_value_are_stock_flannels(#[case] kind: &str, #[case] rest: &str) {
    let cluster = one_host(&backend(kind));
    let entries = cluster.etcd.list(&format!("{PREFIX}/subnets/")).unwrap();
    let node = &cluster.members[0].node;
    let device = node.host.namespace.ip("-brief link show type vxlan").unwrap();
    let mac = device.split_whitespace().nth(2).unwrap_or_default();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].key, format!("{PREFIX}/subnets/{}-24", node.file.subnet.ip()));
    let value = format!(r#"{{"PublicIP":"192.168.77.11","PublicIPv6":null{}}}"#, rest.replace('%', mac));
    assert_eq!(entries[0].value, value);
    assert_ne!(entries[0].lease, 0);
}

/// Removes files where there are any.
fn forget(files: &[PathBuf]) {
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn subnet_is_kept_by_the_lease_or_by_the_subnet_file() {
    let mut cluster = one_host(&backend("vxlan"));
    let member = &mut cluster.members[0];
    let file = member.node.file;
    let key = cluster.etcd.list(&format!("{PREFIX}/subnets/")).unwrap().remove(0).key;

    member.daemon.terminate().unwrap();
    forget(&[member.daemon.state_file(), member.daemon.subnet_file()]);
    member.daemon.restart().unwrap();
    assert_eq!(member.daemon.wait_ready().unwrap(), file, "by the lease");

    member.daemon.terminate().unwrap();
    forget(&[member.daemon.state_file()]);
    cluster.etcd.delete(&key).unwrap();
    member.daemon.restart().unwrap();
    assert_eq!(member.daemon.wait_ready().unwrap(), file, "by the subnet file");
    assert!(cluster.etcd.get(&key).is_ok());
}

#[test]
fn configuration_of_the_paper() {
    let cluster = one_host(
        r#"{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0","Backend":{"Type":"udp","Port":7890}}"#,
    );
    let file = cluster.members[0].node.file;
    assert_eq!((file.network.to_string().as_str(), file.subnet.prefix(), file.mtu), ("10.0.0.0/8", 20, 1472));
    assert!((10..=99).contains(&file.subnet.ip().octets()[1]), "{}", file.subnet);
    let status = cluster.members[0].daemon.ctl_json("status").unwrap();
    assert_eq!(status["port"], 7890);
}

#[test]
fn daemon_without_a_free_subnet_ends_and_says_so() {
    let config = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.7.0","SubnetMax":"10.5.7.0"}"#;
    let error = Cluster::start(&Plan { config: config.to_owned(), ..Plan::new("{}") }).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("has ended (exit status: 1)") && text.contains("out of subnets"), "{text}");
}
