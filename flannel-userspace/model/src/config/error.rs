//! Why a network configuration is refused.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::json::{JsonError, TypeError};

/// A network configuration that cannot be served. It can be changed at any time, so the daemon tries again, unless it
/// [`is_final`](Self::is_final).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No JSON, or not an object.
    #[error(
        "the network configuration is not a JSON object: write one such as {{\"Network\":\"10.5.0.0/16\"}}"
    )]
    Json(#[source] JsonError),

    /// The value of a key has the wrong type.
    #[error("wrong type in the network configuration: {0}")]
    Type(#[from] TypeError),

    /// `Backend` is not an object.
    #[error(
        "error decoding Backend property of config: Backend is {value}: write an object such as \
         {{\"Type\":\"vxlan\"}}"
    )]
    BackendJson {
        /// What it is instead.
        value: String,
        /// How reading it as an object failed.
        source: JsonError,
    },

    /// `Backend.Type` is not a string.
    #[error("error decoding Backend property of config: {0}")]
    BackendType(#[source] TypeError),

    /// No IP version is enabled.
    #[error("none defined stack: EnableIPv4 and EnableIPv6 are both false: leave EnableIPv4 out")]
    NoStack,

    /// IPv6 is enabled.
    #[error("IPv6 is not served yet: set EnableIPv6 to false and EnableIPv4 to true, or leave both out")]
    Ipv6NotServed,

    /// `Network` is absent, or everything.
    #[error(
        "please define a correct Network parameter in the flannel config: Network is absent or \
         0.0.0.0/0: set it to the network of the pods, such as \"10.5.0.0/16\""
    )]
    NoNetwork,

    /// `Network` is not a network.
    #[error(
        "invalid CIDR address: {0}: set Network to an IPv4 address and a length, such as \"10.5.0.0/16\""
    )]
    InvalidNetwork(String),

    /// A bound is not an address.
    #[error("invalid IP address format: {value}: set {key} to an IPv4 address, such as \"10.5.1.0\"")]
    InvalidAddress {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },

    /// Four subnets of four addresses do not fit.
    #[error(
        "network is too small. Minimum useful network prefix is /28: Network is {0}: choose a larger one"
    )]
    TooSmall(Ipv4Network),

    /// Fewer than four addresses in a subnet.
    #[error("SubnetLen must be less than /31: SubnetLen is {0}: set it to 30 or less, or leave it out")]
    SubnetLenTooLong(u32),

    /// Fewer than four subnets in the network.
    #[error(
        "network must be able to accommodate at least four subnets: SubnetLen is {asked} and Network is \
         {network}: set SubnetLen to {shortest} or more, or choose a larger Network"
    )]
    TooFewSubnets {
        /// The network.
        network: Ipv4Network,
        /// The length that was asked for.
        asked: u32,
        /// The shortest that is possible.
        shortest: u32,
    },

    /// A bound lies outside the network.
    #[error(
        "{key} is not in the range of the Network: {key} is {addr} and Network is {network}: set it to \
             the first address of a subnet of that"
    )]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        addr: Ipv4Addr,
        /// The network.
        network: Ipv4Network,
    },

    /// A bound is not the first address of a subnet.
    #[error(
        "{key} is not on a SubnetLen boundary: {addr}: the /{subnet_len} around it starts at {start}: \
             set {key} to that"
    )]
    NotOnBoundary {
        /// The key.
        key: &'static str,
        /// Its value.
        addr: Ipv4Addr,
        /// First address of the subnet in which it lies.
        start: Ipv4Addr,
        /// Prefix length of subnets.
        subnet_len: u8,
    },
}

impl ConfigError {
    /// Whether stock flannel exits with 1 instead of waiting for another configuration. IPv6, which it
    /// would have served, is treated as its neighbour in the table of IP versions.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::NoStack | Self::Ipv6NotServed)
    }
}
