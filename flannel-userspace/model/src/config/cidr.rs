//! Networks as text, read as strictly as Go's `net.ParseCIDR` reads them.

use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

/// The text is not an IPv4 address, a slash and a length of at most 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCidr;

/// Reads `address/length` and keeps the host bits of the address.
///
/// # Errors
/// Anything else, such as an address alone or a netmask instead of the length.
pub fn parse(text: &str) -> Result<Ipv4Network, InvalidCidr> {
    let (addr, len) = text.split_once('/').ok_or(InvalidCidr)?;
    let addr: Ipv4Addr = addr.parse().map_err(|_| InvalidCidr)?;
    if !len.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(InvalidCidr); // such as a sign
    }
    let len = len.parse().map_err(|_| InvalidCidr)?;
    Ipv4Network::new(addr, len).map_err(|_| InvalidCidr)
}

/// `network` with its host bits cleared.
#[must_use]
pub fn masked(network: IpNetwork) -> IpNetwork {
    // The length comes from a network and is valid, so the fallback is never taken.
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

/// The same of IPv4.
#[must_use]
pub fn masked_v4(network: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(network.network(), network.prefix()).unwrap_or(network)
}

/// Whether `network` is `around` or a part of it.
#[must_use]
pub fn is_subnet_of(network: IpNetwork, around: IpNetwork) -> bool {
    match (network, around) {
        (IpNetwork::V4(network), IpNetwork::V4(around)) => network.is_subnet_of(around),
        (IpNetwork::V6(network), IpNetwork::V6(around)) => network.is_subnet_of(around),
        _ => false,
    }
}

/// Whether an address is in both.
#[must_use]
pub fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{InvalidCidr, is_subnet_of, masked, masked_v4, overlap, parse};

    #[rstest]
    #[case::plain("10.5.0.0/16", "10.5.0.0/16")]
    #[case::host_bits("10.5.3.7/16", "10.5.0.0/16")]
    #[case::everything("0.0.0.0/0", "0.0.0.0/0")]
    #[case::one_host("10.5.3.7/32", "10.5.3.7/32")]
    fn accepted(#[case] text: &str, #[case] expected: &str) {
        let network = parse(text).unwrap();
        assert_eq!(masked_v4(network).to_string(), expected);
        assert_eq!(masked(network.into()).to_string(), expected);
    }

    #[rstest]
    #[case::equal("10.5.0.0/16", "10.5.0.0/16", true, true)]
    #[case::part("10.5.1.0/24", "10.5.0.0/16", true, true)]
    #[case::whole("fd00::/48", "fd00::/64", false, true)]
    #[case::apart("fd00:1::/64", "fd00:2::/64", false, false)]
    #[case::other_family("10.5.1.0/24", "::/0", false, false)]
    fn parts_and_overlaps(
        #[case] one: &str,
        #[case] other: &str,
        #[case] is_part: bool,
        #[case] overlaps: bool,
    ) {
        let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!((is_subnet_of(one, other), overlap(one, other)), (is_part, overlaps));
        assert_eq!(overlap(other, one), overlaps);
    }

    #[rstest]
    #[case::empty("")]
    #[case::no_length("10.5.0.0")]
    #[case::empty_length("10.5.0.0/")]
    #[case::netmask("10.5.0.0/255.255.0.0")]
    #[case::too_long("10.5.0.0/33")]
    #[case::overflow("10.5.0.0/272")]
    #[case::sign("10.5.0.0/+16")]
    #[case::space("10.5.0.0/16 ")]
    #[case::twice("10.5.0.0/16/16")]
    #[case::leading_zero("10.05.0.0/16")]
    #[case::three_octets("10.5.0/16")]
    #[case::ipv6("fc00::/48")]
    fn refused(#[case] text: &str) {
        assert_eq!(parse(text), Err(InvalidCidr));
    }
}
