//! Lists, dumps and the answer about one peer.

use std::fs;
use std::process::Command;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use serde_json::{Value, json};

use super::{ask, ask_json, keys, state_file};

#[test]
fn leases_of_file_and_etcd() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    let state_file = state_file(&cluster.members[0], 1);
    cluster.members[0].daemon.kill().unwrap();
    let put = |subnet: &str, value: &str| {
        cluster.etcd.put(&format!("{PREFIX}/subnets/{subnet}"), value).unwrap();
    };
    put("10.5.251.0-24", r#"{"PublicIP":"192.168.77.11","BackendType":"vxlan"}"#);
    put("10.5.252.0-24", "junk");
    let member = &cluster.members[0];
    let [own, other] = [0, 1].map(|member| cluster.members[member].node.file.subnet.to_string());
    let state_of = |answer: &Value, subnet: &str| {
        let leases = answer["leases"].as_array().unwrap();
        leases.iter().find(|lease| lease["subnets"][0] == subnet).map(|lease| lease["state"].clone())
    };

    let (code, file) = ask_json(member, &["leases", &state_file]);
    assert_eq!((code, &file["source"]), (Some(0), &json!("state_file")));
    assert_eq!(state_of(&file, &own), Some(json!("ours")), "{file}");
    assert_eq!(state_of(&file, &other), Some(json!("accepted")), "{file}");
    assert_eq!(file["leases"].as_array().unwrap().len(), 2);

    let endpoints = format!("--etcd-endpoints={}", cluster.etcd.url());
    let (code, etcd) = ask_json(member, &["leases", &endpoints]);
    assert_eq!((code, &etcd["source"]), (Some(0), &json!("etcd")));
    assert_eq!(state_of(&etcd, &own), Some(json!("ours")), "{etcd}");
    assert_eq!(state_of(&etcd, &other), Some(json!("accepted")), "{etcd}");
    assert_eq!(state_of(&etcd, "10.5.251.0/24"), Some(json!("refused")), "{etcd}");
    assert_eq!(state_of(&etcd, "10.5.252.0/24"), Some(json!("refused")), "{etcd}");
    let ours = etcd["leases"].as_array().unwrap().iter().find(|lease| lease["state"] == "ours").unwrap();
    let left = ours["expires_seconds"].as_u64().unwrap();
    assert!((86_000..=86_400).contains(&left) && ours["kind"] == "lease", "{ours}");
    assert_eq!(
        keys(ours),
        [
            "backend",
            "expires_seconds",
            "key",
            "kind",
            "node",
            "public_ips",
            "reason",
            "state",
            "subnets",
            "vtep_macs"
        ]
    );
    let (_, table, _) = ask(member, &["leases", &endpoints]);
    assert!(table.contains("PublicIP 192.168.77.11 is this host's own address"), "{table}");
}

#[test]
fn one_peer_maps_and_features() {
    let mut cluster = Cluster::start(&Plan::new(r#"{"Type":"vxlan"}"#)).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster.members[0].daemon.kill().unwrap();
    let member = &cluster.members[0];
    let subnet = cluster.members[1].node.file.subnet.to_string();
    let pod = cluster.pod(1).unwrap().address.to_string();
    for who in [subnet.as_str(), "192.168.77.12", pod.as_str()] {
        let (code, whole) = ask_json(member, &["peers", who]);
        assert_eq!((code, &whole["peer"]["subnet"]), (Some(0), &json!(subnet)), "{who}");
        let kinds: Vec<&Value> =
            whole["kernel"].as_array().unwrap().iter().map(|thing| &thing["kind"]).collect();
        assert_eq!(kinds, ["neighbour", "fdb", "route"], "{whole}");
        assert_eq!(whole["underlay"]["text"], "192.168.77.12 dev eth0");
    }
    let (code, _, said) = ask(member, &["peers", "10.5.250.1"]);
    assert!(code == Some(3) && said.contains("no peer is 10.5.250.1"), "{said}");

    let (code, dump) = ask_json(member, &["maps", "dump"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        keys(&dump),
        [
            "APPROVED",
            "COUNTERS",
            "FLOWS",
            "GENERATION",
            "NODE_INFO",
            "PEERS",
            "PEER_COUNTERS",
            "PORTS",
            "SOURCES",
            "TRACE_FILTER"
        ]
    );
    assert_eq!(dump["SOURCES"], json!([{"address": "192.168.77.12", "subnets": 1}]));
    assert_eq!(dump["PEERS"][0]["public_ip"], "192.168.77.12");
    assert_eq!(dump["NODE_INFO"][0]["bypass"], "flow");
    assert!(dump["GENERATION"][0]["generation"].as_u64() > Some(0), "{dump}");
    let (_, only) = ask_json(member, &["maps", "dump", "sources"]);
    assert_eq!(keys(&only), ["SOURCES"]);
    let (code, _, said) = ask(member, &["maps", "dump", "nothing"]);
    assert!(code == Some(2) && said.contains("PEER_COUNTERS"), "{said}");

    let (code, features) = ask_json(member, &["features"]);
    assert_eq!(code, Some(0));
    let lacking = |feature: &&Value| feature["required"] == true && feature["supported"] != true;
    let lacking: Vec<&Value> = features["features"].as_array().unwrap().iter().filter(lacking).collect();
    assert_eq!(lacking, Vec::<&Value>::new(), "what runs here is told to be missing");
    assert_eq!(features["interface"]["name"], "eth0");
    assert_eq!(features["interface"]["xdp_native"], true, "a virtual cable takes it");
    assert_eq!(
        (&features["interface"]["card"], &features["interface"]["xdp_taken"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(features["choice"]["mechanism"], "tc", "and yet does not get it");
    assert!(features["choice"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert!(features["used"].as_array().unwrap().len() >= 3, "{features}");
}

#[test]
fn sysdump_holds_everything_but_secrets() {
    // Without a user the password is of no use, and yet nobody's business.
    let plan = Plan::new(r#"{"Type":"vxlan"}"#).with_flag("--etcd-password=canary");
    let cluster = Cluster::start(&plan).unwrap();
    let member = &cluster.members[0];
    let state_file = state_file(member, 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dump.tar.gz");
    let file = path.to_str().unwrap();
    let (code, written) = ask_json(member, &["sysdump", "-w", file, &state_file]);
    assert_eq!((code, &written["file"]), (Some(0), &json!(file)));
    let unpacked =
        Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(directory.path()).status().unwrap();
    assert!(unpacked.success());
    let inner =
        fs::read_dir(directory.path()).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
    let read = |name: &str| fs::read_to_string(inner.path().join(name)).unwrap();
    for name in ["status.json", "peers.json", "leases.json", "verify.json", "kernel.json", "maps.json"] {
        let value: Value = serde_json::from_str(&read(name)).unwrap();
        assert_eq!(value.get("error"), None, "{name}: {value}");
    }
    assert!(read("daemon.json").contains("--iface=eth0"));
    for file in fs::read_dir(inner.path()).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains("canary"), "{} tells the password", file.path().display());
    }
    assert!(read("ip-route.json").contains("flannel.1"));
    let (code, _, said) = ask(member, &["sysdump", "-w", file]);
    assert!(code == Some(1) && said.contains("-w"), "{said}");
}
