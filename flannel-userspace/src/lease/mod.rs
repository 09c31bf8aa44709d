//! Leases: who owns which subnet.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

/// What the holder of a lease says of itself: the JSON value of a lease key, byte for byte as stock
/// flannel writes it (the fields in this order, no spaces).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// The address at which other hosts reach the holder.
    #[serde(rename = "PublicIP")]
    pub public_ip: Ipv4Addr,
    /// The same for IPv6; stock flannel writes `null` where there is none.
    #[serde(rename = "PublicIPv6", default)]
    pub public_ipv6: Option<Ipv6Addr>,
    /// The backend's type; absent with `udp` and `alloc`.
    #[serde(rename = "BackendType", default, skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<String>,
    /// What the backend of a peer must know.
    #[serde(rename = "BackendData", default, skip_serializing_if = "Option::is_none")]
    pub backend_data: Option<serde_json::Value>,
    /// The same for IPv6.
    #[serde(rename = "BackendV6Data", default, skip_serializing_if = "Option::is_none")]
    pub backend_v6_data: Option<serde_json::Value>,
}

/// A lease as it stands in etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The leased subnet.
    pub subnet: Ipv4Network,
    /// What its holder says of itself.
    pub attributes: Attributes,
    /// etcd revision of the last write of the key; an event with an older one is out of date.
    pub mod_revision: i64,
}
