//! What this host is, as far as leases are held against it.

use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::backend::Kind;
use flannel_model::config::NetworkConfig;
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::underlay::Underlay;
use flannel_model::vxlan::Formats;
use ipnetwork::IpNetwork;

use super::{FamilySite, Site};

impl Site {
    /// This host: `endpoints` are etcd's URLs, then the backend's kind and this host's VTEPs.
    #[must_use]
    pub fn new(
        endpoints: &[String],
        config: &NetworkConfig,
        (kind, vteps): (Kind, PerFamily<(Formats, Mac)>),
        underlay: &Underlay,
        subnets: &Subnets,
        gateway: Option<IpAddr>,
    ) -> Self {
        let endpoints = endpoints.iter().filter_map(|url| address_of(url));
        let mut families = PerFamily::NONE;
        for (family, config) in config.families.iter() {
            let vtep = vteps.get(family).copied();
            let site = |subnet: IpNetwork| FamilySite {
                network: config.network,
                subnet_len: subnet.prefix(),
                subnet,
                vtep,
            };
            families.set(family, subnets.get(family).map(site));
        }
        Self {
            families,
            addresses: underlay.addresses.iter().chain(underlay.public.iter()).collect(),
            kind,
            connected: underlay.networks.clone(),
            reserved: endpoints.chain(gateway).collect(),
        }
    }
}

/// The address in an endpoint's URL, if it is one and not a name.
fn address_of(url: &str) -> Option<IpAddr> {
    let rest = url.trim().split_once("://").map_or(url.trim(), |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    if let Some((host, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host.parse().ok();
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::address_of;

    #[rstest]
    #[case::plain("http://192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::path("https://192.168.77.1:2379/", Some("192.168.77.1"))]
    #[case::no_scheme("192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::no_port("http://192.168.77.1", Some("192.168.77.1"))]
    #[case::name("http://etcd.example:2379", None)]
    #[case::ipv6("http://[fd00::1]:2379", Some("fd00::1"))]
    #[case::ipv6_without_port("http://[fd00::1]/", Some("fd00::1"))]
    #[case::open_bracket("http://[fd00::1", None)]
    fn address_in_an_endpoint(#[case] url: &str, #[case] address: Option<&str>) {
        assert_eq!(address_of(url).map(|address| address.to_string()).as_deref(), address);
    }
}
