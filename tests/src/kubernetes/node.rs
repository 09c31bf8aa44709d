//! Nodes, as kubelet, kube-controller-manager and stock flannel write them.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::ApiServer;
use crate::leases::Lease;

/// What the names of flannel's annotations begin with.
pub const ANNOTATIONS: &str = "flannel.alpha.coreos.com/";

impl ApiServer {
    /// Makes a node, as kubelet does; where `pod_cidr` is given, with what kube-controller-manager assigns.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn add_node(&self, name: &str, pod_cidr: Option<&str>) -> Result<Value> {
        let node = json!({ "metadata": { "name": name }, "spec": {} });
        let node = self.request("POST", "/api/v1/nodes", Some(("application/json", &node)))?;
        match pod_cidr {
            Some(pod_cidr) => self.assign(name, pod_cidr),
            None => Ok(node),
        }
    }

    /// Assigns a subnet to a node that has none.
    ///
    /// # Errors
    /// It has one.
    pub fn assign(&self, name: &str, pod_cidr: &str) -> Result<Value> {
        let patch = json!({ "spec": { "podCIDR": pod_cidr, "podCIDRs": [pod_cidr] } });
        self.patch(name, "", &patch)
    }

    /// Deletes a node.
    ///
    /// # Errors
    /// There is none.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.request("DELETE", &format!("/api/v1/nodes/{name}"), None).map(|_| ())
    }

    /// A node as it is.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<Value> {
        self.request("GET", &format!("/api/v1/nodes/{name}"), None)
    }

    /// Annotates a node; `null` takes an annotation away. Names are without what all of flannel's begin with.
    ///
    /// # Errors
    /// There is no such node.
    pub fn annotate(&self, name: &str, annotations: &[(&str, Option<&str>)]) -> Result<Value> {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(key, value)| (format!("{ANNOTATIONS}{key}"), json!(value))).collect();
        self.patch(name, "/status", &json!({ "metadata": { "annotations": annotations } }))
    }

    /// Sets the condition `NetworkUnavailable` of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn set_network_unavailable(&self, name: &str, status: &str) -> Result<Value> {
        let condition = json!({ "type": "NetworkUnavailable", "status": status, "reason": "Tests" });
        self.patch(name, "/status", &json!({ "status": { "conditions": [condition] } }))
    }

    fn patch(&self, name: &str, part: &str, patch: &Value) -> Result<Value> {
        let kind = "application/strategic-merge-patch+json";
        self.request("PATCH", &format!("/api/v1/nodes/{name}{part}"), Some((kind, patch)))
    }
}

/// An annotation of flannel on a node.
#[must_use]
pub fn annotation<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    node["metadata"]["annotations"][format!("{ANNOTATIONS}{name}")].as_str()
}

/// All annotations of flannel on a node, in the order of their names.
#[must_use]
pub fn annotations_of(node: &Value) -> Vec<(String, String)> {
    let all = node["metadata"]["annotations"].as_object().into_iter().flatten();
    let own = all.filter_map(|(key, value)| {
        Some((key.strip_prefix(ANNOTATIONS)?.to_owned(), value.as_str()?.to_owned()))
    });
    own.collect()
}

/// What a daemon of stock flannel writes for this lease with the VXLAN backend.
///
/// # Errors
/// The lease names no VTEP.
pub fn stock_annotations(lease: &Lease) -> Result<Vec<(&'static str, Option<String>)>> {
    let mac = lease.vtep_mac.as_ref().context("the lease names no VTEP")?;
    Ok(vec![
        ("backend-data", Some(format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#))),
        ("backend-type", Some("vxlan".to_owned())),
        ("kube-subnet-manager", Some("true".to_owned())),
        ("public-ip", Some(lease.public_ip.to_string())),
    ])
}

/// The lease that stock flannel reads from a node.
///
/// # Errors
/// The node is not one that a flannel with the VXLAN backend serves.
pub fn lease_of(node: &Value) -> Result<Lease> {
    let get = |name| annotation(node, name).with_context(|| format!("no annotation {name} in {node}"));
    anyhow::ensure!(get("kube-subnet-manager")? == "true" && get("backend-type")? == "vxlan", "{node}");
    let data: Value = serde_json::from_str(get("backend-data")?)?;
    Ok(Lease {
        subnet: node["spec"]["podCIDR"].as_str().context("no podCIDR")?.parse()?,
        public_ip: get("public-ip")?.parse()?,
        vtep_mac: data["VtepMAC"].as_str().map(str::to_owned),
    })
}
