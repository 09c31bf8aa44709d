//! The clouds whose route tables carry packets from host to host.

use flannel_common::maps;

/// A cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Amazon's Virtual Private Cloud.
    AwsVpc,
    /// Google Compute Engine.
    Gce,
    /// Tencent Cloud.
    TencentVpc,
    /// Alibaba Cloud.
    AliVpc,
}

impl Provider {
    /// Every cloud.
    pub const ALL: [Self; 4] = [Self::AwsVpc, Self::Gce, Self::TencentVpc, Self::AliVpc];

    /// The name of its backend: `Backend.Type` of the network configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsVpc => "aws-vpc",
            Self::Gce => "gce",
            Self::TencentVpc => "tencent-vpc",
            Self::AliVpc => "ali-vpc",
        }
    }

    /// As the maps know its backend. Programs are not on the way of its packets.
    #[must_use]
    pub const fn for_programs(self) -> maps::Backend {
        match self {
            Self::AwsVpc => maps::Backend::AwsVpc,
            Self::Gce => maps::Backend::Gce,
            Self::TencentVpc => maps::Backend::TencentVpc,
            Self::AliVpc => maps::Backend::AliVpc,
        }
    }
}
