//! Addresses as they stand on the wire.

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// An IPv4 address, or a netmask, in network byte order: the number holds the four bytes as they stand
/// in memory, so a key compares equal to the field of a packet without any swap.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ip4(u32);

impl Ip4 {
    /// 0.0.0.0
    pub const UNSPECIFIED: Self = Self(0);

    /// From the four bytes of a packet.
    #[must_use]
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The four bytes of a packet.
    #[must_use]
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The netmask of a prefix length; lengths above 32 count as 32.
    #[must_use]
    pub const fn netmask(prefix_len: u8) -> Self {
        let host_bits = 32u32.saturating_sub(prefix_len as u32);
        let mask = match u32::MAX.checked_shl(host_bits) {
            Some(mask) => mask,
            None => 0,
        };
        Self(mask.to_be())
    }

    /// This address with the host bits of `mask` cleared.
    #[must_use]
    #[inline(always)]
    pub const fn masked(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    /// Whether the number in memory is below that of `other`: an order, though not that of the addresses.
    #[must_use]
    #[inline(always)]
    pub const fn is_below(self, other: Self) -> bool {
        self.0 < other.0
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(addr: Ipv4Addr) -> Self {
        Self::from_octets(addr.octets())
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(addr: Ip4) -> Self {
        Self::from(addr.octets())
    }
}

impl fmt::Display for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ethernet address. In packets and maps it is where words of two bytes can be read: byte by byte programs would
/// take three times as long.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(2))]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// 00:00:00:00:00:00, which no interface has.
    pub const ZERO: Self = Self([0; 6]);

    /// The same address, put together from its three words.
    ///
    /// A compiler keeps a whole that it only copies on the stack, in pieces. Words it keeps in registers, and on the
    /// stack each in a place of its own, as verifiers before 6.8 want it without CAP_PERFMON: they take a word that is
    /// written beside another one for an attempt to change a pointer (`check_stack_write_fixed_off`).
    #[must_use]
    #[inline(always)]
    pub fn by_words(self) -> Self {
        let [first, second, third]: [u16; 3] = transmute!(self);
        transmute!([first, second, third])
    }

    /// Whether this address can be that of one interface: neither zero nor a group address
    /// (IEEE 802: the lowest bit of the first byte).
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && (a | b | c | d | e | f) != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not six hexadecimal bytes with colons between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an Ethernet address is six hexadecimal bytes with colons between")
    }
}

impl core::error::Error for ParseMacError {}

impl core::str::FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let is_hex = |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let part = parts.next().filter(is_hex).ok_or(ParseMacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        parts.next().map_or(Ok(Self(mac)), |_| Err(ParseMacError))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use rstest::rstest;

    use super::{Ip4, Mac};

    extern crate std;
    use std::string::ToString;

    #[rstest]
    #[case(0, Ipv4Addr::new(0, 0, 0, 0))]
    #[case(1, Ipv4Addr::new(128, 0, 0, 0))]
    #[case(20, Ipv4Addr::new(255, 255, 240, 0))]
    #[case(32, Ipv4Addr::new(255, 255, 255, 255))]
    #[case(40, Ipv4Addr::new(255, 255, 255, 255))]
    fn netmask_of_prefix_length(#[case] len: u8, #[case] mask: Ipv4Addr) {
        assert_eq!(Ipv4Addr::from(Ip4::netmask(len)), mask);
    }

    #[test]
    fn masking_clears_host_bits() {
        let addr = Ip4::from(Ipv4Addr::new(10, 5, 78, 9));
        assert_eq!(addr.masked(Ip4::netmask(24)), Ip4::from(Ipv4Addr::new(10, 5, 78, 0)));
    }

    #[test]
    fn mac_text_round_trip() {
        let mac: Mac = "fa:36:2c:5b:b0:c7".parse().unwrap();
        assert_eq!(mac.0, [0xfa, 0x36, 0x2c, 0x5b, 0xb0, 0xc7]);
        assert_eq!(mac.to_string(), "fa:36:2c:5b:b0:c7");
    }

    #[rstest]
    #[case::empty("")]
    #[case::five_bytes("fa:36:2c:5b:b0")]
    #[case::seven_bytes("fa:36:2c:5b:b0:c7:00")]
    #[case::not_hexadecimal("fa:36:2c:5b:b0:cg")]
    #[case::one_digit("fa:36:2c:5b:b0:c")]
    #[case::sign("fa:36:2c:5b:b0:+7")]
    fn malformed_mac_is_refused(#[case] text: &str) {
        assert!(text.parse::<Mac>().is_err());
    }

    #[rstest]
    #[case::unicast("fa:36:2c:5b:b0:c7", true)]
    #[case::multicast("01:00:5e:00:00:01", false)]
    #[case::broadcast("ff:ff:ff:ff:ff:ff", false)]
    #[case::zero("00:00:00:00:00:00", false)]
    fn unicast(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(text.parse::<Mac>().unwrap().is_unicast(), expected);
    }
}
