//! Nodes as the API server tells of them: of some dozen kilobytes each the few fields that matter.

use flannel_model::config::json::excerpt;
use flannel_model::family::Subnets;
use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::annotations::Annotations;

/// A node, or its metadata alone.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: Status,
}

/// The same without its status, which is most of a node.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) metadata: Metadata,
    /// Absent where only metadata was asked for.
    #[serde(default)]
    pub(crate) spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) resource_version: String,
    pub(crate) creation_timestamp: Option<Time>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) annotations: Annotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Spec {
    #[serde(rename = "podCIDR", default, deserialize_with = "null_is_default")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs", default, deserialize_with = "null_is_default")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Status {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
}

/// A page of nodes.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) metadata: PageMetadata,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) items: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    pub(crate) resource_version: String,
    #[serde(rename = "continue", default, deserialize_with = "null_is_default")]
    pub(crate) next: String,
}

/// A pod, as far as it says on which node it runs, and its addresses.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Pod {
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    #[serde(rename = "podIP", default)]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs", default, deserialize_with = "null_is_default")]
    pub(crate) pod_ips: Vec<PodIp>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct PodIp {
    #[serde(default)]
    pub(crate) ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec {
    #[serde(default)]
    pub(crate) node_name: String,
}

/// What a node was assigned is not one network, or one of each family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CidrError {
    /// One of them is no network.
    #[error("podCIDR is no network: {0}")]
    Invalid(String),
    /// There are too many of one family.
    #[error("pod cidrs should be IPv4/IPv6 only or dualstack: they are {0}")]
    Many(String),
}

impl Spec {
    /// The networks of the node's pods: `podCIDRs`, else `podCIDR` of an older Kubernetes. None where none is assigned
    /// yet.
    pub(crate) fn subnets(&self) -> Result<Subnets, CidrError> {
        let mut cidrs: Vec<&str> =
            self.pod_cidrs.iter().map(String::as_str).filter(|cidr| !cidr.is_empty()).collect();
        if cidrs.is_empty() && !self.pod_cidr.is_empty() {
            cidrs.push(&self.pod_cidr);
        }
        let mut subnets = Subnets::NONE;
        for cidr in &cidrs {
            let invalid = || CidrError::Invalid(excerpt(cidr));
            // An address alone would be read as a network of one.
            let network: IpNetwork =
                cidr.contains('/').then(|| cidr.parse().ok()).flatten().ok_or_else(invalid)?;
            if subnets.get(network.into()).is_some() {
                return Err(CidrError::Many(excerpt(&cidrs.join(", "))));
            }
            subnets = subnets.with(network);
        }
        Ok(subnets)
    }
}

impl Status {
    /// Whether Kubernetes takes the node's network to be available.
    pub(crate) fn is_network_available(&self) -> bool {
        let mut conditions = self.conditions.iter();
        conditions.any(|condition| condition.kind == "NetworkUnavailable" && condition.status == "False")
    }
}

impl Metadata {
    /// When the node was made, in seconds since 1970; zero where that is not said.
    pub(crate) fn created(&self) -> i64 {
        self.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
    }
}

/// Go writes `null` for what is empty.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
