//! Networks as text, read as strictly as Go's `net.ParseCIDR` reads them.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

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
pub fn masked(network: Ipv4Network) -> Ipv4Network {
    // The length comes from a network and is valid, so the fallback is never taken.
    Ipv4Network::new(network.network(), network.prefix()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{InvalidCidr, masked, parse};

    #[rstest]
    #[case::plain("10.5.0.0/16", "10.5.0.0/16")]
    #[case::host_bits("10.5.3.7/16", "10.5.0.0/16")]
    #[case::everything("0.0.0.0/0", "0.0.0.0/0")]
    #[case::one_host("10.5.3.7/32", "10.5.3.7/32")]
    fn accepted(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(masked(parse(text).unwrap()).to_string(), expected);
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
