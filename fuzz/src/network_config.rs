//! The network's configuration, which anybody who can write to the registry can write.

use anyhow::{Result, ensure};
use flannel_model::config::cloud::RouteTables;
use flannel_model::config::network::FamilyConfig;
use flannel_model::config::{BackendConfig, CloudConfig, NetworkConfig};
use flannel_model::family::Family;
use ipnetwork::IpNetwork;

use crate::limit::{error_fits_the_log, timed};

/// A configuration that is accepted keeps its rules; a refusal fits the log.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    let Ok(json) = std::str::from_utf8(input) else { return Ok(()) };
    let config = match timed(|| NetworkConfig::parse(json))? {
        Ok(config) => config,
        Err(error) => return error_fits_the_log(&error),
    };
    check_subnets(&config)?;
    match timed(|| BackendConfig::parse(&config.backend))? {
        Ok(backend) => check_backend(&backend),
        Err(error) => error_fits_the_log(&error),
    }
}

fn check_subnets(config: &NetworkConfig) -> Result<()> {
    ensure!(!config.families.is_empty(), "no family is served");
    for (family, config) in config.families.iter() {
        let FamilyConfig { network, subnet_len, subnet_min, subnet_max } = *config;
        ensure!(Family::from(network) == family, "{network} is of the other family");
        ensure!(network.prefix() > 0 && network.ip() == network.network(), "{network} has host bits");
        let longest = family.bits() - 2;
        ensure!(subnet_len <= longest && subnet_len >= network.prefix() + 2, "{network} in /{subnet_len}");
        for bound in [subnet_min, subnet_max] {
            ensure!(network.contains(bound), "{bound} is not in {network}");
            let subnet = IpNetwork::new(bound, subnet_len)?;
            ensure!(subnet.network() == bound, "{bound} in /{subnet_len}");
        }
    }
    Ok(())
}

fn check_backend(backend: &BackendConfig) -> Result<()> {
    match backend {
        BackendConfig::Udp(config) => ensure!(config.port != 0, "port 0"),
        BackendConfig::Vxlan(vxlan) => {
            ensure!(vxlan.port != 0, "port 0");
            ensure!(vxlan.mtu.is_none_or(|mtu| (118..=65_535).contains(&mtu)), "MTU {:?}", vxlan.mtu);
        }
        BackendConfig::Cloud(CloudConfig::AwsVpc(aws)) => {
            ensure!(aws.route_limit != 0, "no routes");
            if let RouteTables::Named(ids) = &aws.tables {
                ensure!(!ids.is_empty() && ids.iter().all(|id| id.starts_with("rtb-")), "{ids:?}");
            }
        }
        BackendConfig::Cloud(CloudConfig::Gce(gce)) => {
            ensure!(gce.alias_ranges || gce.secondary_range.is_none(), "a range of no alias ranges");
        }
        BackendConfig::Cloud(CloudConfig::TencentVpc(config) | CloudConfig::AliVpc(config)) => {
            ensure!(config.route_limit != Some(0), "no routes");
        }
        BackendConfig::HostGw | BackendConfig::Alloc => {}
    }
    Ok(())
}
