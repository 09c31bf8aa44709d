//! `flannelctl verify` finds whatever is not as it should be.

use std::fs;
use std::time::Duration;

use flannel_datapath::Tables;
use flannel_tests::cluster::{Cluster, Member, Plan};
use flannel_tests::etcd::PREFIX;
use flannel_tests::wait;
use rstest::rstest;
use serde_json::Value;

use super::{ask, ask_json, state_file};

#[rstest]
#[case::vxlan(r#"{"Type":"vxlan"}"#, None)]
#[case::vxlan_direct(r#"{"Type":"vxlan","DirectRouting":true}"#, None)]
#[case::vxlan_clsact(r#"{"Type":"vxlan"}"#, Some("--datapath-hook=clsact"))]
#[case::vxlan_xdp(r#"{"Type":"vxlan"}"#, Some("--datapath-hook=xdp"))]
#[case::udp(r#"{"Type":"udp"}"#, None)]
#[case::host_gw(r#"{"Type":"host-gw"}"#, None)]
#[case::alloc(r#"{"Type":"alloc"}"#, None)]
fn what_the_daemon_made_is_as_it_should_be(#[case] backend: &str, #[case] flag: Option<&str>) {
    let mut plan = Plan::new(backend);
    if let Some(flag) = flag {
        plan = plan.with_flag(flag);
    }
    let mut cluster = Cluster::start(&plan).unwrap();
    let endpoints = format!("--etcd-endpoints={}", cluster.etcd.url());
    let state_file = state_file(&cluster.members[0], 1);
    let (code, waited, said) = ask(&cluster.members[0], &["status", "--wait", "--timeout=20"]);
    assert_eq!(code, Some(0), "{waited}{said}");
    let told = |member: &Member| {
        for source in [state_file.as_str(), endpoints.as_str()] {
            let (code, answer) = ask_json(member, &["verify", source]);
            assert_eq!((code, &answer["equal"]), (Some(0), &true.into()), "{source}: {answer}");
            assert!(answer["checked"].as_u64().unwrap() >= 3, "{answer}");
        }
    };
    told(&cluster.members[0]);
    cluster.members[0].daemon.kill().unwrap();
    told(&cluster.members[0]);
}

/// Each difference as one line.
pub(super) fn differences(member: &Member, source: &str) -> Vec<String> {
    let (code, answer) = ask_json(member, &["verify", source]);
    let differences: Vec<Value> = answer["differences"].as_array().unwrap().clone();
    let expected = if differences.is_empty() { 0 } else { 3 };
    assert_eq!(code, Some(expected), "{answer}");
    let word = |difference: &Value, name: &str| difference[name].as_str().unwrap_or_default().to_owned();
    let line = |d: &Value| {
        format!("{} {} {} {}", word(d, "fault"), word(d, "kind"), word(d, "text"), word(d, "found"))
    };
    differences.iter().map(line).collect()
}

/// Damages something and has it found; what was damaged before stays so.
pub(super) fn check_found(member: &Member, source: &str, expected: &str, damage: impl FnOnce()) {
    let is_told = |told: &[String]| told.iter().any(|line| line.starts_with(expected));
    let before = differences(member, source);
    assert!(!is_told(&before), "{expected} is told before it is so: {before:#?}");
    damage();
    let after = differences(member, source);
    assert!(is_told(&after), "{expected} is not told: {after:#?}");
}

#[test]
fn each_kind_of_damage_is_found_and_mended_by_the_daemon() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let source = state_file(&cluster.members[0], 1);
    cluster.members[0].daemon.kill().unwrap();
    let (member, other) = (&cluster.members[0], &cluster.members[1]);
    let ip = |arguments: &str| member.node.host.namespace.ip(arguments).unwrap();
    let subnet = other.node.file.subnet;
    let gateway = subnet.network();
    let (_, peers) = ask_json(member, &["peers"]);
    let mac = peers["peers"][0]["vtep_mac"].as_str().unwrap().to_owned();
    assert_eq!(differences(member, &source), Vec::<String>::new());

    check_found(
        member,
        &source,
        &format!("missing route {subnet} via {gateway} dev flannel.1 onlink"),
        || {
            ip(&format!("route delete {subnet}"));
        },
    );
    check_found(member, &source, &format!("changed neighbour {gateway} dev flannel.1 lladdr {mac}"), || {
        ip(&format!("neighbour replace {gateway} dev flannel.1 lladdr 02:00:00:00:00:99 nud permanent"));
    });
    check_found(member, &source, &format!("missing fdb {mac}"), || {
        let delete = format!("fdb delete {mac} dev flannel.1 dst 192.168.77.12 self");
        member.node.host.namespace.run("bridge", &delete).unwrap();
    });
    check_found(member, &source, "unexpected route 10.5.254.0/24", || {
        // Another one would be the user's.
        ip("route add 10.5.254.0/24 via 10.5.254.0 dev flannel.1 onlink");
    });
    check_found(member, &source, "changed device flannel.1 mtu is 1300, wanted 1450", || {
        ip("link set flannel.1 mtu 1300");
    });
    let own = member.node.file.subnet.network();
    check_found(member, &source, &format!("missing address {own}/32 dev flannel.1"), || {
        ip(&format!("address delete {own}/32 dev flannel.1"));
    });
    check_found(member, &source, &format!("missing peer {subnet} at 192.168.77.12"), || {
        let mut reading = Tables::open_to_read(member.daemon.pin_dir()).unwrap();
        let entry = reading.peer(gateway).unwrap().unwrap();
        reading.remove_peer(gateway, entry).expect_err("flannelctl can change what it reads");
        let mut tables = Tables::open(member.daemon.pin_dir()).unwrap();
        tables.remove_peer(gateway, entry).unwrap();
    });
    check_found(member, &source, "missing program vxlan_encap at flannel.1", || {
        let links = fs::read_dir(member.daemon.pin_dir().join("links")).unwrap();
        let link =
            links.flatten().find(|link| link.file_name().to_string_lossy().starts_with("vxlan_encap-"));
        fs::remove_file(link.unwrap().path()).unwrap();
    });
    let (code, _, said) = ask(member, &["status", "--wait", "--timeout=1"]);
    assert_eq!(code, Some(3), "{said}");
    let (_, table, _) = ask(member, &["verify", &source]);
    assert!(table.contains("differences from what the state file"), "{table}");

    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    let member = &cluster.members[0];
    wait::until_true("the daemon to mend it", Duration::from_secs(15), || {
        differences(member, &source).is_empty()
    })
    .unwrap();
}

#[test]
fn what_etcd_asks_for_and_nobody_has_heard_of_is_missing() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let key = format!("{PREFIX}/subnets/10.5.250.0-24");
    let lease = r#"{"PublicIP":"192.168.77.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}"#;
    cluster.etcd.put(&key, lease).unwrap();
    let endpoints = format!("--etcd-endpoints={}", cluster.etcd.url());
    let told = differences(&cluster.members[0], &endpoints);
    assert!(
        told.iter().any(|line| line.starts_with("missing peer 10.5.250.0/24 at 192.168.77.99")),
        "{told:#?}"
    );
    assert_eq!(told.len(), 4, "{told:#?}");
}

#[test]
fn without_anything_known_it_says_where_to_look() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"host-gw"}"#)).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let (code, stdout, said) = ask(&cluster.members[0], &["verify", "--state-file=/nowhere/state.json"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(said.contains("/nowhere/state.json") && said.contains("--etcd-endpoints"), "{said}");
}
