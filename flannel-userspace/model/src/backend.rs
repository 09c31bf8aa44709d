//! The kinds of backend.

use std::fmt;
use std::str::FromStr;

use flannel_common::maps;

use crate::cloud::Provider;

/// The kind of a backend: how packets get from host to host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// IP packets in UDP.
    Udp,
    /// Ethernet frames in VXLAN (RFC 7348).
    Vxlan,
    /// Routes via the other hosts' addresses, nothing encapsulated.
    HostGw,
    /// A lease and nothing else: somebody else carries the packets.
    Alloc,
    /// Routes in the route tables of a cloud, nothing encapsulated.
    Cloud(Provider),
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Udp,
        Self::Vxlan,
        Self::HostGw,
        Self::Alloc,
        Self::Cloud(Provider::AwsVpc),
        Self::Cloud(Provider::Gce),
        Self::Cloud(Provider::TencentVpc),
        Self::Cloud(Provider::AliVpc),
    ];

    /// The name of the kind: `Backend.Type` of the network configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Alloc => "alloc",
            Self::Cloud(provider) => provider.name(),
        }
    }

    /// As the programs know the kind.
    #[must_use]
    pub const fn for_programs(self) -> maps::Backend {
        match self {
            Self::Udp => maps::Backend::Udp,
            Self::Vxlan => maps::Backend::Vxlan,
            Self::HostGw => maps::Backend::HostGw,
            Self::Alloc => maps::Backend::Alloc,
            Self::Cloud(provider) => provider.for_programs(),
        }
    }

    /// Whether programs may see packets on their way from pods to other hosts' pods.
    #[must_use]
    pub const fn has_programs(self) -> bool {
        !matches!(self, Self::Alloc | Self::Cloud(_))
    }

    /// Whether flanneld has this host forward packets from and to its pods.
    #[must_use]
    pub const fn forwards(self) -> bool {
        !matches!(self, Self::Alloc)
    }

    /// The number by which the maps know the kind.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.for_programs() as u32
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The `BackendType` of a lease; stock flannel writes none with `udp`, `alloc` and clouds.
    #[must_use]
    pub const fn lease_type(self) -> Option<&'static str> {
        match self {
            Self::Udp | Self::Alloc | Self::Cloud(_) => None,
            Self::Vxlan => Some("vxlan"),
            Self::HostGw => Some("host-gw"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no kind of backend that is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown backend type: {0:?}; this version serves udp, vxlan, host-gw, alloc, aws-vpc, gce, tencent-vpc and ali-vpc"
)]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Letters of either case, as stock flannel.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Kind, Provider};

    #[rstest]
    #[case("udp", Kind::Udp, None)]
    #[case("VXLAN", Kind::Vxlan, Some("vxlan"))]
    #[case("host-gw", Kind::HostGw, Some("host-gw"))]
    #[case("alloc", Kind::Alloc, None)]
    #[case("aws-vpc", Kind::Cloud(Provider::AwsVpc), None)]
    #[case("gce", Kind::Cloud(Provider::Gce), None)]
    #[case("tencent-vpc", Kind::Cloud(Provider::TencentVpc), None)]
    #[case("ali-vpc", Kind::Cloud(Provider::AliVpc), None)]
    fn name_and_lease_type(#[case] text: &str, #[case] kind: Kind, #[case] lease_type: Option<&str>) {
        assert_eq!(text.parse(), Ok(kind));
        assert_eq!(kind.lease_type(), lease_type);
    }

    #[test]
    fn numbers_are_those_of_one_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
    }

    #[rstest]
    #[case::empty("")]
    #[case::not_served("ipip")]
    #[case::space("udp ")]
    fn other_names_are_refused(#[case] text: &str) {
        assert!(text.parse::<Kind>().unwrap_err().to_string().contains("unknown backend type"));
    }
}
