//! Two nodes with containers, and the control plane that serves them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{Agents, ApiServer, Controllers, Image, Machine, PAUSE, program};
use crate::binaries;
use crate::claim::{self, Claim};
use crate::cluster::Turn;
use crate::network::{Host, HostOptions, Network, Place};
use crate::traffic::Endpoint;
use crate::wait;

/// How long a pod may take until it serves.
pub const READY: Duration = Duration::from_secs(120);
/// Serves by HTTP and UDP who asked and its own name, and asks others.
pub const AGNHOST: &str = "k8s.gcr.io/e2e-test-images/agnhost:2.21";
const MANIFEST: &str = include_str!("../../../packaging/kubernetes/kube-flannel.yml");

/// A cluster with flannel.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order.
    /// The nodes `h1` and `h2`.
    pub nodes: Vec<Agents>,
    _controllers: Controllers,
    /// What they register at.
    pub api: ApiServer,
    /// What joins them.
    pub network: Network,
    _images: Claim,
    _turn: Turn,
}

impl Lab {
    /// Starts it with this backend, and returns once every node is ready.
    ///
    /// # Errors
    /// A program is missing; something does not become ready.
    pub fn start(backend: &Value) -> Result<Self> {
        Self::start_with(&manifest(backend)?)
    }

    /// The same with that manifest.
    ///
    /// # Errors
    /// The same.
    pub fn start_with(manifest: &str) -> Result<Self> {
        let turn = Turn::take();
        let network = Network::new()?;
        let (directory, claim) = claim::directory("images")?;
        let images = [pause(&directory)?, agnhost(&directory)?, flannel(&directory, manifest)?];
        let api = ApiServer::start_for_pods(&network)?;
        let controllers = Controllers::start(&api)?;
        let images: Vec<&Path> = images.iter().map(PathBuf::as_path).collect();
        let node = |number| {
            let host = Host::new(&network, Place::Near, number, HostOptions::default())?;
            Agents::start(Machine::start(host)?, &api, &images)
        };
        let nodes = thread::scope(|scope| {
            let started = [1, 2].map(|number| scope.spawn(move || node(number)));
            let ended = started.map(|node| node.join().unwrap_or_else(|_| Err(anyhow!("a node panicked"))));
            ended.into_iter().collect::<Result<Vec<_>>>()
        })?;
        let lab = Self { nodes, _controllers: controllers, api, network, _images: claim, _turn: turn };
        lab.api.kubectl(&["apply", "--filename=-"], manifest)?;
        lab.wait_rolled_out().with_context(|| lab.tell())?;
        Ok(lab)
    }

    /// Waits until every node has a flannel that is ready and of the present manifest, and is ready itself.
    ///
    /// # Errors
    /// It takes too long.
    pub fn wait_rolled_out(&self) -> Result<()> {
        wait::until("flannel to be on every node", READY, || {
            let set = self.api.request(
                "GET",
                "/apis/apps/v1/namespaces/kube-flannel/daemonsets/kube-flannel-ds",
                None,
            )?;
            let (generation, status) = (&set["metadata"]["generation"], &set["status"]);
            let is_out = status["observedGeneration"] == *generation
                && ["updatedNumberScheduled", "numberReady"]
                    .iter()
                    .all(|key| status[key] == json!(self.nodes.len()));
            ensure!(is_out, "{status}");
            Ok(())
        })?;
        wait::until("every node to be ready", READY, || {
            self.nodes.iter().try_for_each(|node| {
                let node = self.api.node(&node.machine.host.name)?;
                let conditions = node["status"]["conditions"].as_array().context("no conditions")?;
                let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
                ensure!(is_ready, "{conditions:?}");
                Ok(())
            })
        })
    }

    /// Makes pods and services.
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.api.kubectl(&["apply", "--filename=-"], &list.to_string()).map(|_| ())
    }

    /// Waits until a pod is ready, and returns its address.
    ///
    /// # Errors
    /// It is not; then with what a person would look at.
    pub fn wait_pod(&self, name: &str) -> Result<Ipv4Addr> {
        wait::until(&format!("pod {name} to be ready"), READY, || {
            let pod = self.api.request("GET", &format!("/api/v1/namespaces/default/pods/{name}"), None)?;
            let status = &pod["status"];
            let conditions = status["conditions"].as_array().context("no conditions")?;
            let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            ensure!(is_ready, "{status}");
            Ok(status["podIP"].as_str().context("no address")?.parse()?)
        })
        .with_context(|| self.tell())
    }

    /// A pod as an end of traffic.
    ///
    /// # Errors
    /// It is not ready, or on another node.
    pub fn endpoint(&self, node: usize, name: &str) -> Result<Endpoint> {
        let address = self.wait_pod(name)?;
        let namespace = self.node(node)?.machine.pod(address)?;
        Ok(Endpoint { name: name.to_owned(), namespace, address })
    }

    /// A node by its place among them.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, node: usize) -> Result<&Agents> {
        self.nodes.get(node).context("there is no such node")
    }

    /// The logs of flannel on every node.
    ///
    /// # Errors
    /// Kubelet does not tell them.
    pub fn flannel_logs(&self) -> Result<String> {
        let all = ["--namespace=kube-flannel", "logs", "--selector=app=flannel", "--tail=-1", "--prefix"];
        self.api.kubectl(&all, "")
    }

    /// What a person would look at who asks why something is not there.
    #[must_use]
    pub fn tell(&self) -> String {
        let ask = |arguments: &[&str]| match self.api.kubectl(arguments, "") {
            Ok(text) => text,
            Err(error) => format!("{error:#}\n"),
        };
        let pods = ask(&["get", "pods,services,endpoints,nodes", "--all-namespaces", "--output=wide"]);
        let events = ask(&["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]);
        let logs = ask(&[
            "--namespace=kube-flannel",
            "logs",
            "--selector=app=flannel",
            "--tail=40",
            "--prefix",
            "--all-containers",
        ]);
        let agents: String = self
            .nodes
            .iter()
            .flat_map(|node| {
                ["kubelet", "kube-proxy", "containerd"].map(|name| {
                    format!("--- {name} on {}\n{}\n", node.machine.host.name, node.log_tail(name, 15))
                })
            })
            .collect();
        format!("{pods}\n{events}\n{logs}\n{agents}")
    }
}

/// The manifest that users apply, with this backend, and with every image that of flannel.
fn manifest(backend: &Value) -> Result<String> {
    let conf = r#""Backend": {
        "Type": "vxlan"
      }"#;
    ensure!(MANIFEST.contains(conf), "the manifest has another configuration");
    let text = MANIFEST.replace(conf, &format!("\"Backend\": {backend}"));
    Ok(text.replace("ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3", "flannel-ebpf:0.1.0"))
}

fn pause(directory: &Path) -> Result<PathBuf> {
    let image = Image::new(directory.join("pause"))?;
    image.add(&program("pause")?, "/pause")?;
    image.pack(&[PAUSE], &["/pause"], &[])
}

fn agnhost(directory: &Path) -> Result<PathBuf> {
    let image = Image::new(directory.join("agnhost"))?;
    image.add(&program("agnhost")?, "/agnhost")?;
    image.add_commands(&[
        "sh", "curl", "nc", "cat", "ls", "sleep", "grep", "sed", "date", "hostname", "ip", "seq", "tr",
    ])?;
    image.pack(&[AGNHOST], &["/agnhost"], &["pause"])
}

/// The image that `FLANNEL_IMAGE` names, or else the programs as they were built for the tests, with what they run, under
/// each name that the manifest has for an image.
fn flannel(directory: &Path, manifest: &str) -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os("FLANNEL_IMAGE") {
        return Ok(archive.into());
    }
    let image = Image::new(directory.join("flannel"))?;
    for name in ["flanneld", "flannelctl"] {
        image.add_built(&binaries::find(name)?, &format!("/usr/bin/{name}"))?;
    }
    image.add_built(&binaries::find("flanneld")?, "/opt/bin/flanneld")?;
    image.add_built(&binaries::find("flannel")?, "/flannel")?;
    image.add_commands(&["cp", "sh", "iptables", "iptables-save", "iptables-restore", "nft"])?;
    image.add_folder(Path::new("/usr/lib/x86_64-linux-gnu/xtables"))?;
    // Called with a file and its place, as stock flannel's.
    image.add_program(Path::new("/bin/cp"), "/opt/bin/install-conf")?;
    let names = manifest.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    let names: BTreeSet<&str> = names.collect();
    image.pack(&names.into_iter().collect::<Vec<_>>(), &["/opt/bin/flanneld"], &[])
}

/// A server or client on a node, ready once kubelet's probes of it succeed.
#[must_use]
pub fn pod(name: &str, node: &str, labels: &Value) -> Value {
    let probe = |port: u16| json!({ "httpGet": { "path": "/healthz", "port": port }, "periodSeconds": 1 });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "args": ["netexec", "--http-port=8080", "--udp-port=8081"],
                "readinessProbe": probe(8080),
                "livenessProbe": probe(8080),
            }],
        },
    })
}

/// The same in the network of the node itself.
#[must_use]
pub fn host_pod(name: &str, node: &str, labels: &Value) -> Value {
    let mut pod = pod(name, node, labels);
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

/// A service with `http` and `udp`, and what else is in `spec`.
#[must_use]
pub fn service(name: &str, selector: &Value, spec: &Value) -> Value {
    let mut whole = json!({
        "selector": selector,
        "ports": [
            { "name": "http", "port": 80, "targetPort": 8080 },
            { "name": "udp", "port": 90, "targetPort": 8081, "protocol": "UDP" },
            { "name": "free", "port": 100, "targetPort": 8100 },
        ],
    });
    if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
        whole.extend(spec.clone());
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": whole })
}
