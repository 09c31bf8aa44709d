//! With the plugins that hosts have: `bridge`, `host-local`, `portmap`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

use crate::rig::{Host, Said, V4, program, read, run};

const V6: &str =
    "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

/// A host and a pod as network namespaces, and a network of which host-local remembers the addresses.
struct Node {
    host: Host,
    host_netns: Netns,
    pod_netns: Netns,
    network: String,
}

impl Node {
    fn new(subnet_file: &str) -> Self {
        assert!(Path::new("/proc/self/ns/net").exists() && process_is_root(), "needs root");
        let host = Host::new();
        host.write_subnet_file(subnet_file);
        let (host_netns, pod_netns) = (Netns::new(), Netns::new());
        let network = format!("cni-{}", host_netns.name);
        Self { host, host_netns, pod_netns, network }
    }

    fn conf(&self, version: &str) -> Value {
        self.host.conf_of(&self.network, version)
    }

    fn plugin(&self, program: &Path, command: &str) -> Command {
        let mut netns = Command::new("ip");
        netns.args(["netns", "exec", &self.host_netns.name]).arg(program);
        netns.env("CNI_COMMAND", command).env("CNI_PATH", plugins()).env("CNI_CONTAINERID", "pod");
        netns.env("CNI_IFNAME", "eth0").env("CNI_NETNS", self.pod_netns.path());
        netns
    }

    fn run(&self, command: &str, conf: &Value) -> Said {
        run(self.plugin(program(), command), &conf.to_string())
    }

    fn kept(&self) -> PathBuf {
        self.host.path("data/pod:eth0")
    }

    /// The addresses that host-local has given.
    fn given(&self) -> Vec<String> {
        let folder = fs::read_dir(self.addresses()).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    fn addresses(&self) -> PathBuf {
        Path::new("/var/lib/cni/networks").join(&self.network)
    }

    fn pod_has_interface(&self) -> bool {
        let mut ip = Command::new("ip");
        ip.args(["-netns", &self.pod_netns.name, "link", "show", "eth0"]).output().unwrap().status.success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.addresses());
    }
}

struct Netns {
    name: String,
}

impl Netns {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fl-{}-cni{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        ip(&["-netns", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?} (needs root and iproute2): {output:?}");
}

fn process_is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where the usual plugins are.
fn plugins() -> &'static Path {
    let folders = ["/usr/lib/cni", "/opt/cni/bin"].map(Path::new);
    let complete =
        |folder: &&Path| ["bridge", "host-local", "portmap"].iter().all(|name| folder.join(name).exists());
    folders.into_iter().find(complete).unwrap_or_else(|| {
        panic!(
            "no bridge, host-local and portmap in {folders:?}: `cargo xtask setup` installs \
             containernetworking-plugins"
        )
    })
}

#[rstest]
#[case::v4(V4, &["10.1.0.0/16"], &["10.1.17.0/24"])]
#[case::v4_two_networks(&V4.replace("/16\n", "/16,192.168.0.0/16\n"), &["10.1.0.0/16", "192.168.0.0/16"], &["10.1.17.0/24"])]
#[case::v6(V6, &["fc00::/48"], &["fc00::/64"])]
#[case::dual(&[V4, V6].concat(), &["10.1.0.0/16", "fc00::/48"], &["10.1.17.0/24", "fc00::/64"])]
fn life_of_a_pod(#[case] subnet_file: &str, #[case] networks: &[&str], #[case] subnets: &[&str]) {
    let node = Node::new(subnet_file);
    let mut conf = node.conf("1.0.0");
    let said = node.run("ADD", &conf);
    let result = said.result().clone();
    let expected = json!({
        "name": node.network, "type": "bridge", "cniVersion": "1.0.0",
        "ipMasq": false, "isGateway": true, "mtu": 1472,
        "ipam": {
            "type": "host-local",
            "ranges": subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect::<Vec<_>>(),
            "routes": networks.iter().map(|network| json!({"dst": network})).collect::<Vec<_>>(),
        },
    });
    assert_eq!(read(&node.kept()), expected);
    assert_eq!(result["cniVersion"], "1.0.0");
    assert_eq!(result["ips"].as_array().unwrap().len(), subnets.len(), "{result}");
    assert_eq!(node.given().len(), subnets.len());
    assert!(node.pod_has_interface());

    conf["prevResult"] = result;
    node.run("CHECK", &conf).result();
    ip(&["-netns", &node.pod_netns.name, "address", "flush", "dev", "eth0"]);
    node.run("CHECK", &conf).error();

    node.run("DEL", &conf).result();
    assert!(!node.kept().exists() && !node.pod_has_interface());
    assert!(node.given().is_empty(), "{:?}", node.given());
    node.run("DEL", &conf).result();
}

#[rstest]
fn every_version_of_the_usual_plugins(
    #[values("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")] version: &str,
) {
    let node = Node::new(V4);
    let conf = node.conf(version);
    assert_eq!(node.run("ADD", &conf).result()["cniVersion"], version);
    node.run("DEL", &conf).result();
    assert!(node.given().is_empty());
}

#[test]
fn a_pod_that_is_gone_is_removed_again_where_the_delegate_masquerades() {
    let node = Node::new(&V4.replace("IPMASQ=true", "IPMASQ=false"));
    let conf = node.conf("1.0.0");
    node.run("ADD", &conf).result();
    assert_eq!(read(&node.kept())["ipMasq"], true);
    node.run("DEL", &conf).result();
    node.run("DEL", &conf).result();
}

/// As after a restore of the host without `/var/lib/cni/flannel`.
#[test]
fn the_address_is_given_back_though_the_file_is_gone() {
    let node = Node::new(V4);
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = node.run("ADD", &conf).result().clone();
    fs::remove_file(node.kept()).unwrap();
    fs::remove_file(node.host.path("subnet.env")).unwrap();
    node.run("DEL", &conf).result();
    assert!(node.given().is_empty() && !node.pod_has_interface());
}

/// The second pod of a subnet for one.
#[test]
fn a_full_subnet_leaves_nothing() {
    let node = Node::new(&V4.replace("10.1.17.1/24", "10.1.17.1/30"));
    node.run("ADD", &node.conf("1.0.0")).result();
    let another = Netns::new();
    let mut add = node.plugin(program(), "ADD");
    add.env("CNI_CONTAINERID", "another").env("CNI_NETNS", another.path());
    let said = run(add, &node.conf("1.0.0").to_string());
    assert!(said.error().1.contains("no IP addresses available"), "{said:?}");
    assert_eq!(node.given().len(), 1);
    assert!(node.kept().exists() && !node.host.path("data/another:eth0").exists());
}

#[test]
fn portmap_goes_on_from_the_result() {
    let node = Node::new(V4);
    let mut conf = node.conf("1.0.0");
    conf["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let result = node.run("ADD", &conf).result().clone();
    let portmap = json!({
        "name": node.network, "type": "portmap", "cniVersion": "1.0.0",
        "runtimeConfig": conf["runtimeConfig"], "prevResult": result,
    });
    let said = run(node.plugin(&plugins().join("portmap"), "ADD"), &portmap.to_string());
    assert_eq!(said.result()["ips"], result["ips"]);
    let mut rules = Command::new("ip");
    rules.args(["netns", "exec", &node.host_netns.name, "iptables", "-t", "nat", "-S"]);
    let rules = String::from_utf8(rules.output().unwrap().stdout).unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/24");
    assert!(rules.contains(&format!("--to-destination {address}:80")), "{rules}");
    run(node.plugin(&plugins().join("portmap"), "DEL"), &portmap.to_string()).result();
    node.run("DEL", &conf).result();
    assert!(node.given().is_empty());
}
