//! `flannelctl` where Kubernetes is the registry: nodes by their names, what the API server says, and every other verb.

use flannel_tests::daemon::Daemon;
use flannel_tests::kubernetes::{ApiServer, annotation};
use flannel_tests::network::Host;
use flannel_tests::wait;
use serde_json::{Value, json};

use crate::{Lab, SOON, wait_route};

/// The flags by which it asks the API server as `user`.
fn flags(api: &ApiServer, host: &Host, user: &str) -> String {
    let (kubeconfig, net_conf) = (api.kubeconfig(user), api.net_conf(host));
    format!("--kubeconfig-file={} --net-config-path={}", kubeconfig.display(), net_conf.display())
}

fn entry<'a>(leases: &'a Value, node: &str) -> &'a Value {
    let leases = leases["leases"].as_array().unwrap();
    let found = leases.iter().find(|lease| lease["node"] == node);
    assert!(found.is_some(), "no {node} in {leases:?}");
    found.unwrap()
}

#[test]
fn nodes_have_names() {
    let lab = Lab::new();
    let ((first, host), (_second, _)) = (lab.member(1), lab.member(2));
    wait_route(&host, "10.244.2.0/24", true);
    let registry = &first.ctl_json("status").unwrap()["daemon"]["registry"];
    assert_eq!((&registry["kind"], &registry["node"]), (&json!("kubernetes"), &json!("h1")));
    assert!(first.ctl("status").unwrap().contains("registry  Kubernetes, node h1\n"));
    assert_eq!(first.ctl_json("peers").unwrap()["peers"][0]["node"], "h2");
    let table = first.ctl("peers --sort node").unwrap();
    assert!(table.lines().next().unwrap().ends_with("NODE"), "{table}");
    assert_eq!(first.ctl_json("peers h2").unwrap()["peer"]["subnet"], "10.244.2.0/24");
    wait::until_true("the state to be written", SOON, || {
        std::fs::read_to_string(first.state_file()).unwrap_or_default().contains("10.244.2.0/24")
    })
    .unwrap();
    let remembered = first.ctl_json("leases").unwrap();
    assert_eq!(remembered["source"], "state_file");
    assert_eq!(entry(&remembered, "h2")["subnets"], json!(["10.244.2.0/24"]));
}

#[test]
fn the_api_server_is_asked_for_nodes() {
    let lab = Lab::new();
    let ((mut first, host), (_second, _)) = (lab.member(1), lab.member(2));
    wait_route(&host, "10.244.2.0/24", true);
    lab.api.add_node("cover", Some("192.168.77.0/24")).unwrap();
    lab.announce("cover", [192, 168, 77, 67].into());
    let flags = flags(&lab.api, &host, "flannel");
    let leases = first.ctl_json(&format!("leases {flags}")).unwrap();
    assert_eq!(leases["source"], "kubernetes");
    for (node, state) in [("h1", "ours"), ("h2", "accepted"), ("cover", "refused")] {
        let entry = entry(&leases, node);
        assert_eq!((&entry["state"], &entry["kind"]), (&json!(state), &json!("node")), "{leases}");
    }
    let verified =
        || first.ctl_json(&format!("verify {flags}")).is_ok_and(|found| found["source"] == "kubernetes");
    wait::until_true("nothing to differ from the nodes", SOON, verified).unwrap();
    // Nobody puts it back.
    first.kill().unwrap();
    host.namespace.ip("route del 10.244.2.0/24").unwrap();
    let differs = first.ctl(&format!("verify {flags}")).unwrap_err();
    assert!(format!("{differs:#}").contains("exit status: 3"), "{differs:#}");
}

fn add_pod(lab: &Lab, name: &str, node: &str, address: &str) {
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
    });
    lab.api.request("POST", pods, Some(("application/json", &pod))).unwrap();
    let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
    let kind = "application/strategic-merge-patch+json";
    lab.api.request("PATCH", &format!("{pods}/{name}/status"), Some((kind, &status))).unwrap();
}

#[test]
fn pods_are_explained_by_their_names() {
    let lab = Lab::new();
    let ((first, host), (_second, _)) = (lab.member(1), lab.member(2));
    wait_route(&host, "10.244.2.0/24", true);
    add_pod(&lab, "web", "h1", "10.244.1.7");
    add_pod(&lab, "db", "h2", "10.244.2.9");
    let flags = flags(&lab.api, &host, "flannel");
    let kubeconfig = flags.split(' ').next().unwrap();
    let explanation = first.ctl_json(&format!("explain default/web default/db {kubeconfig}")).unwrap();
    let ends = (&explanation["source"], &explanation["destination"]);
    assert_eq!(ends, (&json!("10.244.1.7"), &json!("10.244.2.9")), "{explanation}");
    assert_eq!(explanation["verdict"], "forward", "{explanation}");
    let missing = first.ctl(&format!("-o json explain default/web default/none {kubeconfig}")).unwrap_err();
    let missing = format!("{missing:#}");
    assert!(missing.contains(r#""code":"kubernetes""#) && missing.contains("(404)"), "{missing}");
}

/// What neither shows nodes nor asks for them works as with etcd.
#[test]
fn every_other_verb_works() {
    let lab = Lab::new();
    let ((mut first, host), (_second, _)) = (lab.member(1), lab.member(2));
    wait_route(&host, "10.244.2.0/24", true);
    for verb in [
        "counters",
        "drops",
        "maps dump",
        "features",
        "explain 10.244.1.2 10.244.2.2",
        "log-level debug",
        "log-level configured",
        "reload",
        "release",
    ] {
        let answer = first.ctl_json(verb);
        assert!(answer.is_ok(), "{verb}: {answer:?}");
    }
    let archive = first.state_file().with_file_name("dump.tar.gz");
    let dump = format!("sysdump {} -w {}", flags(&lab.api, &host, "flannel"), archive.display());
    sysdump(&first, &dump, &archive);
    first.ctl("leave --yes").unwrap();
    assert_eq!(first.wait_end(SOON).unwrap().code(), Some(0));
    assert_eq!(annotation(&lab.api.node("h1").unwrap(), "kube-subnet-manager"), None);
    let files = (first.subnet_file(), first.state_file());
    first
        .ctl(&format!("down --subnet-file={} --state-file={}", files.0.display(), files.1.display()))
        .unwrap();
    assert!(host.namespace.ip("link show flannel.1").is_err());
}

fn sysdump(daemon: &Daemon, command: &str, archive: &std::path::Path) {
    daemon.ctl(command).unwrap();
    let unpacked = std::process::Command::new("tar").arg("xzOf").arg(archive).output().unwrap();
    let text = String::from_utf8_lossy(&unpacked.stdout);
    assert!(text.contains("\"node\": \"h2\"") || text.contains("\"node\":\"h2\""), "no node is named");
    assert!(!text.contains("flanneltoken"), "the token is a secret");
}
