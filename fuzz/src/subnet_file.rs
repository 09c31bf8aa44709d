//! The subnet file an earlier daemon left.

use anyhow::{Context as _, Result, ensure};
use flannel_control::subnet_file::{Previous, SubnetFile};
use ipnetwork::Ipv4Network;

use crate::file::Memory;
use crate::limit::timed;

/// Networks have no host bits, and a file written for them is read as what was written.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    let previous = read(input)?;
    for network in previous.networks.iter().chain(&previous.subnets) {
        ensure!(network.ip() == network.network(), "{network} has host bits");
    }
    ensure!(previous.previous_subnets().v4.is_some() == (previous.subnets.len() == 1), "{previous:?}");
    // No subnet that is leased is longer: there would be no address for the bridge.
    match previous.previous_subnets().v4.filter(|subnet| subnet.prefix() <= 30) {
        Some(subnet) => check_written(&previous, subnet),
        None => Ok(()),
    }
}

fn check_written(previous: &Previous, subnet: Ipv4Network) -> Result<()> {
    let network = previous.networks.first().copied().unwrap_or(subnet);
    let (mtu, ip_masq) = (previous.mtu.unwrap_or(1450), previous.ip_masq.unwrap_or(true));
    let expected = Previous {
        networks: vec![network],
        subnets: vec![subnet],
        ipv6_subnets: Vec::new(),
        mtu: Some(mtu),
        ip_masq: Some(ip_masq),
    };
    let file = SubnetFile { networks: network.into(), subnets: subnet.into(), mtu, ip_masq };
    let again = read(file.to_string().as_bytes())?;
    ensure!(again == expected, "{expected:?} is read as {again:?}");
    Ok(())
}

fn read(content: &[u8]) -> Result<Previous> {
    let file = Memory::new(content)?;
    timed(|| Previous::read(file.path()))??.context("there is a file")
}
