//! What makes a machine a node: containerd, kubelet and kube-proxy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::control::POD_NETWORK;
use super::{ApiServer, Machine, program};
use crate::network::ETCD_ADDRESS;
use crate::process::Process;
use crate::wait;

/// The container that holds a pod's namespaces, as kubelet and containerd call its image.
pub const PAUSE: &str = "k8s.gcr.io/pause:3.2";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long containerd may take to answer.
const START: Duration = Duration::from_secs(30);

/// A machine that is a node of the cluster.
#[derive(Debug)]
pub struct Agents {
    // Dropped in this order.
    proxy: Option<Process>,
    _kubelet: Process,
    _containerd: Process,
    /// The machine.
    pub machine: Machine,
    proxy_config: String,
}

impl Agents {
    /// Starts them, with these images at hand.
    ///
    /// # Errors
    /// A program is missing, or does not start.
    pub fn start(machine: Machine, api: &ApiServer, images: &[&Path]) -> Result<Self> {
        let directory = machine.directory().to_owned();
        fs::write(directory.join("containerd.toml"), CONTAINERD)?;
        let config = format!("--config={}", directory.join("containerd.toml").display());
        let containerd = machine.spawn("containerd", &[&config])?;
        wait::until("containerd to answer", START, || machine.run("ctr", "version"))
            .with_context(|| containerd.log_tail(20))?;
        for image in images {
            machine.run("ctr", &format!("-n k8s.io images import {}", image.display()))?;
        }
        fs::write(directory.join("kubelet.json"), kubelet_config().to_string())?;
        let kubelet = machine.spawn(
            program("kubelet")?,
            &[
                &format!("--config={}", directory.join("kubelet.json").display()),
                &format!("--kubeconfig={}", api.kubeconfig("admin").display()),
                &format!("--hostname-override={}", machine.host.name),
                &format!("--node-ip={}", machine.host.address),
                &format!("--cert-dir={}", directory.join("kubelet-certificates").display()),
                "--container-runtime=remote",
                &format!("--container-runtime-endpoint=unix://{SOCKET}"),
                &format!("--pod-infra-container-image={PAUSE}"),
            ],
        )?;
        let proxy_config = directory.join("kube-proxy.json");
        fs::write(&proxy_config, proxy_settings(api, &machine).to_string())?;
        let proxy_config = format!("--config={}", proxy_config.display());
        let mut agents =
            Self { proxy: None, _kubelet: kubelet, _containerd: containerd, machine, proxy_config };
        agents.restart_proxy()?;
        Ok(agents)
    }

    /// Ends kube-proxy, if it runs, and starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_proxy(&mut self) -> Result<()> {
        self.proxy.take();
        self.proxy = Some(self.machine.spawn(program("kube-proxy")?, &[&self.proxy_config])?);
        Ok(())
    }

    /// The last lines of what a program of the node has logged.
    #[must_use]
    pub fn log_tail(&self, program: &str, lines: usize) -> String {
        crate::process::log_tail(&self.machine.directory().join(format!("{program}.log")), lines)
    }

    /// Fails unless a file of the node is there.
    ///
    /// # Errors
    /// It is not.
    pub fn check_file(&self, path: &str) -> Result<()> {
        let is_there = self.machine.path(path).is_file();
        ensure!(is_there, "{} has no {path}", self.machine.host.name);
        Ok(())
    }
}

const CONTAINERD: &str = r#"
version = 2
oom_score = 0

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "k8s.gcr.io/pause:3.2"
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#;

/// No limits of a node but those of its machine, and no eviction: disk and memory are other people's, too.
fn kubelet_config() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%" },
        "imageGCHighThresholdPercent": 100,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "resolvConf": "",
        "clusterDNS": [ETCD_ADDRESS],
        "clusterDomain": "cluster.local",
        "readOnlyPort": 0,
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

/// The limits of connection tracking stay what they are: a namespace cannot set them.
fn proxy_settings(api: &ApiServer, machine: &Machine) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": api.kubeconfig("admin") },
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": machine.host.name,
        "mode": "iptables",
        "oomScoreAdj": 0,
        "conntrack": { "maxPerCore": 0, "min": 0 },
        "iptables": { "minSyncPeriod": "100ms", "syncPeriod": "10s" },
    })
}
