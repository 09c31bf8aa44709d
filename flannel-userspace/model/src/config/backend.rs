//! What the network's configuration says of the backend.

use flannel_common::Vni;

use super::cloud::{CloudConfig, CloudOptionError};
use super::json::{Member, TypeError};
use super::network::RawBackend;
use crate::backend::Kind;
use crate::device::{UDP_DEVICE, vxlan_device};
use crate::family::Family;
use crate::vxlan::VxlanFormat;

/// UDP port of the udp backend where none is given.
const UDP_PORT: u16 = 8285;
/// UDP port of the vxlan backend where none is given: the one of Linux, older than the assigned 4789.
const VXLAN_PORT: u16 = 8472;
/// Smallest MTU of an underlay: the 68 bytes every IPv4 link must carry (RFC 791) and the vxlan headers.
const SMALLEST_MTU: u32 = 68 + 50;
/// Largest size of an IPv4 packet.
const LARGEST_MTU: u32 = 65_535;

/// A backend and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendConfig {
    /// IP packets in UDP.
    Udp(UdpConfig),
    /// Ethernet frames in VXLAN.
    Vxlan(VxlanConfig),
    /// Routes via the other hosts' addresses.
    HostGw,
    /// A lease and nothing else.
    Alloc,
    /// Routes in the route tables of a cloud.
    Cloud(CloudConfig),
}

/// Options of the udp backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpConfig {
    /// UDP port, source and destination of every packet.
    pub port: u16,
    /// Whether peers on the same link are reached by a plain route. Stock flannel has this with vxlan only.
    pub direct_routing: bool,
}

/// Options of the vxlan backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanConfig {
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// MTU of the underlay, from which the headers are yet to be taken; absent: the one of its interface.
    pub mtu: Option<u32>,
    /// Whether peers on the same link are reached by a plain route.
    pub direct_routing: bool,
}

/// A backend that cannot be served. Stock flannel exits with 1 for each of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Stock flannel has it, or had it.
    #[error(
        "backend type {0} is not served yet: set Backend.Type to udp, vxlan, host-gw, alloc, aws-vpc, gce, tencent-vpc or ali-vpc, or run stock \
         flannel on every host of this network"
    )]
    NotServed(&'static str),

    /// `Backend` has no `Type`.
    #[error(
        "unknown backend type: none is given: set Backend.Type to udp, vxlan, host-gw, alloc, aws-vpc, gce, tencent-vpc or ali-vpc"
    )]
    NoType,

    /// There is no such backend.
    #[error(
        "unknown backend type: {0}: set Backend.Type to udp, vxlan, host-gw, alloc, aws-vpc, gce, tencent-vpc or ali-vpc"
    )]
    Unknown(String),

    /// An option is of the wrong type.
    #[error("error decoding {kind} backend config: {source}")]
    Type {
        /// The backend.
        kind: Kind,
        /// The option.
        source: TypeError,
    },

    /// An option has a value that cannot be used.
    #[error("error decoding {kind} backend config: {key} is {value}: set it to {expected}, or leave it out")]
    Value {
        /// The backend.
        kind: Kind,
        /// The option.
        key: &'static str,
        /// Its value.
        value: u32,
        /// What is possible.
        expected: &'static str,
    },

    /// An option of a cloud cannot be used.
    #[error("error decoding VPC backend config: {0}")]
    CloudOption(CloudOptionError),

    /// An option stock flannel has asks for something that is not there yet.
    #[error("{key} of the {kind} backend is not served yet: set Backend.{key} to false, or leave it out")]
    OptionNotServed {
        /// The backend.
        kind: Kind,
        /// The option.
        key: &'static str,
    },
}

/// Backends of one or another version of stock flannel that are not served.
const NOT_SERVED: [&str; 4] = ["wireguard", "ipip", "ipsec", "extension"];

impl VxlanConfig {
    /// The format of packets.
    #[must_use]
    pub const fn format(&self) -> VxlanFormat {
        VxlanFormat { vni: self.vni, port: self.port }
    }
}

impl BackendConfig {
    /// Reads the options of the backend and fills in the defaults.
    ///
    /// # Errors
    /// The backend, or what its options ask for, is not served.
    pub fn parse(raw: &RawBackend) -> Result<Self, BackendError> {
        match raw.kind.parse() {
            Ok(Kind::Udp) => parse_udp(raw),
            Ok(Kind::Vxlan) => parse_vxlan(raw),
            Ok(Kind::HostGw) => Ok(Self::HostGw),
            Ok(Kind::Alloc) => Ok(Self::Alloc),
            Ok(Kind::Cloud(provider)) => {
                CloudConfig::parse(provider, &raw.options).map(Self::Cloud).map_err(BackendError::CloudOption)
            }
            Err(_) => Err(unknown(&raw.kind)),
        }
    }

    /// Name of the backend's device for packets of `family`, if it has one.
    #[must_use]
    pub fn device_name(&self, family: Family) -> Option<String> {
        match self {
            Self::Udp(_) => (family == Family::V4).then(|| UDP_DEVICE.to_owned()),
            Self::Vxlan(config) => Some(vxlan_device(config.vni, family)),
            Self::HostGw | Self::Alloc | Self::Cloud(_) => None,
        }
    }

    /// Whether peers on the link of the underlay are reached by a plain route, although there is a tunnel.
    #[must_use]
    pub const fn direct_routing(&self) -> bool {
        match self {
            Self::Udp(UdpConfig { direct_routing, .. }) | Self::Vxlan(VxlanConfig { direct_routing, .. }) => {
                *direct_routing
            }
            Self::HostGw | Self::Alloc | Self::Cloud(_) => false,
        }
    }

    /// The format of packets, with the vxlan backend.
    #[must_use]
    pub const fn vxlan_format(&self) -> Option<VxlanFormat> {
        match self {
            Self::Vxlan(config) => Some(config.format()),
            Self::Udp(_) | Self::HostGw | Self::Alloc | Self::Cloud(_) => None,
        }
    }

    /// The same with that format of packets, if the backend is vxlan.
    #[must_use]
    pub fn with_vxlan_format(&self, format: VxlanFormat) -> Self {
        match self {
            Self::Vxlan(config) => Self::Vxlan(VxlanConfig { vni: format.vni, port: format.port, ..*config }),
            other => other.clone(),
        }
    }

    /// The kind of the backend.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Udp(_) => Kind::Udp,
            Self::Vxlan(_) => Kind::Vxlan,
            Self::HostGw => Kind::HostGw,
            Self::Alloc => Kind::Alloc,
            Self::Cloud(config) => Kind::Cloud(config.provider()),
        }
    }
}

fn unknown(kind: &str) -> BackendError {
    match NOT_SERVED.into_iter().find(|known| *known == kind) {
        None if kind.is_empty() => BackendError::NoType,
        Some(known) => BackendError::NotServed(known),
        None => BackendError::Unknown(super::json::excerpt(kind)),
    }
}

fn parse_udp(raw: &RawBackend) -> Result<BackendConfig, BackendError> {
    let kind = Kind::Udp;
    let (mut port, mut direct_routing) = (u32::from(UDP_PORT), false);
    for option in raw.options.members() {
        let set = match option.name().as_str() {
            "port" => option.set(&mut port),
            "directrouting" => option.set(&mut direct_routing),
            _ => Ok(()),
        };
        set.map_err(|source| BackendError::Type { kind, source })?;
    }
    Ok(BackendConfig::Udp(UdpConfig { port: parse_port(kind, port)?, direct_routing }))
}

fn parse_vxlan(raw: &RawBackend) -> Result<BackendConfig, BackendError> {
    let kind = Kind::Vxlan;
    let mut written = WrittenVxlan::default();
    for option in raw.options.members() {
        written.set(option).map_err(|source| BackendError::Type { kind, source })?;
    }
    written.check().map(BackendConfig::Vxlan)
}

fn parse_port(kind: Kind, port: u32) -> Result<u16, BackendError> {
    let unusable = BackendError::Value { kind, key: "Port", value: port, expected: "1 to 65535" };
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(unusable)
}

/// The options as written.
struct WrittenVxlan {
    vni: u32,
    port: u32,
    mtu: Option<u32>,
    gbp: bool,
    learning: bool,
    direct_routing: bool,
}

impl Default for WrittenVxlan {
    fn default() -> Self {
        Self { vni: 1, port: 0, mtu: None, gbp: false, learning: false, direct_routing: false }
    }
}

impl WrittenVxlan {
    fn set(&mut self, option: &Member) -> Result<(), TypeError> {
        match option.name().as_str() {
            "vni" => option.set(&mut self.vni),
            "port" => option.set(&mut self.port),
            "mtu" => option.set(&mut self.mtu),
            "gbp" => option.set(&mut self.gbp),
            "learning" => option.set(&mut self.learning),
            "directrouting" => option.set(&mut self.direct_routing),
            _ => Ok(()),
        }
    }

    fn check(self) -> Result<VxlanConfig, BackendError> {
        let kind = Kind::Vxlan;
        if self.gbp {
            return Err(BackendError::OptionNotServed { kind, key: "GBP" });
        }
        if self.learning {
            return Err(BackendError::OptionNotServed { kind, key: "Learning" });
        }
        let unusable = |key, value, expected| BackendError::Value { kind, key, value, expected };
        if let Some(mtu) = self.mtu.filter(|mtu| !(SMALLEST_MTU..=LARGEST_MTU).contains(mtu)) {
            return Err(unusable("MTU", mtu, "118 to 65535"));
        }
        let vni = Vni::new(self.vni).ok_or_else(|| unusable("VNI", self.vni, "0 to 16777215"))?;
        // Zero leaves the choice to the kernel.
        let port = if self.port == 0 { VXLAN_PORT } else { parse_port(kind, self.port)? };
        Ok(VxlanConfig { vni, port, mtu: self.mtu, direct_routing: self.direct_routing })
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::Vni;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{BackendConfig, BackendError, UdpConfig, VxlanConfig};
    use crate::backend::Kind;
    use crate::config::network::NetworkConfig;

    fn parse(backend: &str) -> Result<BackendConfig, BackendError> {
        let json = format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#);
        BackendConfig::parse(&NetworkConfig::parse(&json).unwrap().backend)
    }

    fn udp(port: u16, direct_routing: bool) -> BackendConfig {
        BackendConfig::Udp(UdpConfig { port, direct_routing })
    }

    fn vxlan(vni: u32, port: u16, mtu: Option<u32>, direct_routing: bool) -> BackendConfig {
        BackendConfig::Vxlan(VxlanConfig { vni: Vni::new(vni).unwrap(), port, mtu, direct_routing })
    }

    #[test]
    fn udp_is_the_backend_where_none_is_given() {
        let raw = NetworkConfig::parse(r#"{"Network":"10.5.0.0/16"}"#).unwrap().backend;
        assert_eq!(BackendConfig::parse(&raw), Ok(udp(8285, false)));
    }

    #[rstest]
    #[case::udp(r#"{"Type":"udp"}"#, udp(8285, false))]
    #[case::udp_direct(r#"{"Type":"udp","DirectRouting":true}"#, udp(8285, true))]
    #[case::udp_port(r#"{"Type":"UDP","Port":7890}"#, udp(7890, false))]
    #[case::host_gw(r#"{"Type":"host-gw"}"#, BackendConfig::HostGw)]
    #[case::alloc(r#"{"type":"Alloc"}"#, BackendConfig::Alloc)]
    #[case::vxlan(r#"{"Type":"vxlan"}"#, vxlan(1, 8472, None, false))]
    #[case::vxlan_port_zero(r#"{"Type":"vxlan","Port":0}"#, vxlan(1, 8472, None, false))]
    #[case::vxlan_port_null(r#"{"Type":"vxlan","Port":null,"MTU":null}"#, vxlan(1, 8472, None, false))]
    #[case::vxlan_all(
        r#"{"Type":"vxlan","VNI":16777215,"Port":4789,"MTU":9000,"GBP":false,"Learning":false,"DirectRouting":true}"#,
        vxlan(0x00ff_ffff, 4789, Some(9000), true)
    )]
    #[case::vxlan_case(
        r#"{"type":"vxlan","vni":7,"PORT":1,"mtu":1500,"Directrouting":true}"#,
        vxlan(7, 1, Some(1500), true)
    )]
    #[case::vxlan_duplicate(r#"{"Type":"vxlan","VNI":3,"vni":5}"#, vxlan(5, 8472, None, false))]
    #[case::unknown_option(r#"{"Type":"vxlan","MacPrefix":"0E-2A"}"#, vxlan(1, 8472, None, false))]
    fn served(#[case] backend: &str, #[case] expected: BackendConfig) {
        assert_eq!(parse(backend), Ok(expected));
    }

    #[rstest]
    #[case::no_type("{}", "unknown backend type: ")]
    #[case::null("null", "unknown backend type: ")]
    #[case::unknown(r#"{"Type":"Carrier-Pigeon"}"#, "unknown backend type: carrier-pigeon")]
    #[case::wireguard(r#"{"Type":"wireguard"}"#, "backend type wireguard is not served yet")]
    #[case::ipip(r#"{"Type":"IPIP"}"#, "backend type ipip is not served yet")]
    #[case::ipsec(r#"{"Type":"ipsec"}"#, "backend type ipsec is not served yet")]
    #[case::extension(r#"{"Type":"extension"}"#, "backend type extension is not served yet")]
    #[case::table(
        r#"{"Type":"aws-vpc","RouteTableID":7}"#,
        "error decoding VPC backend config: Unexpected RouteTableID type"
    )]
    #[case::gbp(r#"{"Type":"vxlan","GBP":true}"#, "GBP of the vxlan backend is not served yet")]
    #[case::learning(
        r#"{"Type":"vxlan","learning":true}"#,
        "Learning of the vxlan backend is not served yet"
    )]
    #[case::vni(r#"{"Type":"vxlan","VNI":16777216}"#, "VNI is 16777216: set it to 0 to 16777215")]
    #[case::vni_negative(r#"{"Type":"vxlan","VNI":-1}"#, "error decoding vxlan backend config: VNI is -1")]
    #[case::vxlan_port(r#"{"Type":"vxlan","Port":65536}"#, "Port is 65536: set it to 1 to 65535")]
    #[case::mtu_zero(r#"{"Type":"vxlan","MTU":0}"#, "MTU is 0: set it to 118 to 65535")]
    #[case::mtu_large(r#"{"Type":"vxlan","MTU":65536}"#, "MTU is 65536: set it to 118")]
    #[case::mtu_text(r#"{"Type":"vxlan","MTU":"1450"}"#, "MTU is \"1450\"; give a whole number")]
    #[case::flag_number(r#"{"Type":"vxlan","DirectRouting":1}"#, "DirectRouting is 1; give true or false")]
    #[case::udp_port_zero(r#"{"Type":"udp","Port":0}"#, "Port is 0: set it to 1 to 65535")]
    #[case::udp_port_large(
        r#"{"Type":"udp","Port":70000}"#,
        "error decoding udp backend config: Port is 70000"
    )]
    #[case::udp_port_text(r#"{"Type":"udp","Port":"8285"}"#, "Port is \"8285\"; give a whole number")]
    fn refused_with_its_reason(#[case] backend: &str, #[case] message: &str) {
        let refusal = parse(backend).unwrap_err().to_string();
        assert!(refusal.contains(message), "{refusal}");
    }

    #[rstest]
    #[case(r#"{"Type":"udp"}"#, Kind::Udp)]
    #[case(r#"{"Type":"vxlan"}"#, Kind::Vxlan)]
    #[case(r#"{"Type":"host-gw"}"#, Kind::HostGw)]
    #[case(r#"{"Type":"alloc"}"#, Kind::Alloc)]
    fn a_backend_has_its_kind(#[case] backend: &str, #[case] kind: Kind) {
        assert_eq!(parse(backend).unwrap().kind(), kind);
    }

    proptest! {
        #[test]
        fn any_number_is_an_option_or_an_error(
            kind in prop::sample::select(vec!["udp", "vxlan", "host-gw", "alloc", "gre"]),
            key in prop::sample::select(vec!["VNI", "Port", "MTU", "GBP"]),
            value in any::<i64>(),
        ) {
            let _ = parse(&format!(r#"{{"Type":"{kind}","{key}":{value}}}"#));
        }
    }
}
