//! Thousands of nodes that are only objects of the API server, each as large as one of a real cluster.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::kubernetes::{ANNOTATIONS, ApiServer};

/// Concurrent requests.
const IN_FLIGHT: usize = 16;
/// Names of images, which are most of a node.
const IMAGES: u32 = 50;

/// The nodes of other hosts, by their numbers.
pub(super) struct Nodes<'a> {
    api: &'a ApiServer,
}

impl<'a> Nodes<'a> {
    pub(super) const fn new(api: &'a ApiServer) -> Self {
        Self { api }
    }

    /// Makes `count` nodes.
    pub(super) fn fill(&self, count: u32) -> Result<()> {
        self.api.client().run(move |client| async move {
            stream::iter(0..count)
                .map(|number| {
                    let client = client.clone();
                    async move { send(&client, "POST", "/api/v1/nodes", "application/json", &node(number)).await }
                })
                .buffer_unordered(IN_FLIGHT)
                .try_collect()
                .await
        })
    }

    /// Has nodes write their status as kubelet does while nothing changes, one after the other, `rate` a second. Returns
    /// how many have.
    pub(super) fn beat(&self, count: u32, rate: f64, time: Duration) -> Result<u32> {
        self.api.client().run(move |client| async move {
            let begin = Instant::now();
            let beats = (time.as_secs_f64() * rate).round() as u32;
            let beat = |beat: u32| {
                let client = client.clone();
                async move {
                    sleep_until(begin + Duration::from_secs_f64(f64::from(beat) / rate)).await;
                    let path = format!("/api/v1/nodes/{}/status", name(beat % count));
                    let time =
                        format!("2026-01-01T{:02}:{:02}:{:02}Z", beat / 3600 % 24, beat / 60 % 60, beat % 60);
                    let condition = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": time });
                    let patch = json!({ "status": { "conditions": [condition] } });
                    send(&client, "PATCH", &path, "application/strategic-merge-patch+json", &patch).await
                }
            };
            stream::iter(0..beats).map(beat).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
            Ok(beats)
        })
    }
}

async fn send(client: &Client, method: &str, path: &str, kind: &str, body: &Value) -> Result<()> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", kind);
    let answer = client.request_text(request.body(body.to_string().into_bytes())?).await;
    answer.map(drop).with_context(|| format!("{method} {path}"))
}

fn name(number: u32) -> String {
    format!("worker-{number:05}.cluster.example")
}

/// Of about 13 kB, as the API server of a managed cluster shows them.
fn node(number: u32) -> Value {
    let [_, a, b, c] = number.to_be_bytes();
    let subnet = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + (number << 8));
    let address = Ipv4Addr::new(172, 16 + a, b, c);
    let cidr = format!("{subnet}/24");
    let annotation = |name: &str| format!("{ANNOTATIONS}{name}");
    let images: Vec<Value> = (0..IMAGES)
        .map(|image| {
            let name = format!("registry.example.com/team-{image:02}/service");
            let digest = format!("{:064x}", u64::from(image) << 32 | u64::from(number));
            json!({ "names": [format!("{name}@sha256:{digest}"), format!("{name}:v1.{image}.0")], "sizeBytes": 48_000_000 })
        })
        .collect();
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "False", "reason": "KubeletHasNoPressure",
            "message": "kubelet has sufficient memory, disk and process ids available",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(condition);
    json!({
        "metadata": {
            "name": name(number),
            "labels": {
                "kubernetes.io/hostname": name(number), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": "zone-a", "node.kubernetes.io/instance-type": "standard-8",
            },
            "annotations": {
                annotation("backend-data"): format!(r#"{{"VNI":1,"VtepMAC":"02:00:00:{a:02x}:{b:02x}:{c:02x}"}}"#),
                annotation("backend-type"): "vxlan",
                annotation("kube-subnet-manager"): "true",
                annotation("public-ip"): address.to_string(),
                "node.alpha.kubernetes.io/ttl": "300",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address.to_string() }],
            "conditions": conditions,
            "images": images,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::node;

    #[test]
    fn a_node_is_as_large_as_in_a_real_cluster() {
        let bytes = node(14_999).to_string().len();
        assert!((11_000..15_000).contains(&bytes), "{bytes}");
    }
}
