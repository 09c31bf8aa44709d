//! The names of lease keys: `<a.b.c.d>-<length>`, with dual stack `<a.b.c.d>-<length>&<IPv6>-<length>`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{Ipv4Network, Ipv6Network};
use sha2::{Digest as _, Sha256};

use crate::config::json::excerpt;
use crate::family::Subnets;

/// The last part of a key below `<prefix>/subnets/`.
///
/// One key has one spelling: what could be written in two ways (leading zeros, upper case) is junk, so that
/// two keys never name one lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// It names a subnet, which may still be one nobody can lease.
    Subnet(SubnetKey),
    /// It names none. Bytes that are no UTF-8 are replaced, and of a long name there is the beginning and a hash: every
    /// host keeps the names of all keys.
    Junk(String),
}

/// The subnets a key names. Host bits are kept as written. Where only IPv6 is leased, `0.0.0.0-0` stands in the place of
/// the IPv4 subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey(pub Subnets);

/// The name is not that of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key names no subnet; a lease key reads <a.b.c.d>-<length>")]
pub struct ParseKeyError;

impl Key {
    /// The key of a name as it stands in etcd.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Self {
        if name.len() > LONGEST {
            return Self::Junk(shortened(name));
        }
        let name = String::from_utf8_lossy(name);
        name.parse().map_or_else(|ParseKeyError| Self::Junk(name.into_owned()), Self::Subnet)
    }

    /// The subnets it names.
    #[must_use]
    pub const fn subnets(&self) -> Subnets {
        match self {
            Self::Subnet(SubnetKey(subnets)) => *subnets,
            Self::Junk(_) => Subnets::NONE,
        }
    }
}

/// Longest name that is kept whole, in bytes. That of a lease has at most 66.
const LONGEST: usize = 128;

/// The beginning of a long name, and what tells it from others with the same beginning.
fn shortened(name: &[u8]) -> String {
    let beginning = String::from_utf8_lossy(name.get(..LONGEST).unwrap_or(name));
    format!("{beginning}…{}", hex::encode(Sha256::digest(name)))
}

impl fmt::Display for Key {
    /// A subnet's name as it is in etcd; of junk, which may be of any length, as much as fits a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subnet(key) => key.fmt(f),
            Self::Junk(name) => f.write_str(&excerpt(name)),
        }
    }
}

/// What stands in the place of the IPv4 subnet where there is none.
const NO_IPV4: &str = "0.0.0.0-0";

impl fmt::Display for SubnetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Subnets { v4, v6 }) = self;
        match v4 {
            Some(subnet) => write!(f, "{}-{}", subnet.ip(), subnet.prefix())?,
            None => f.write_str(NO_IPV4)?,
        }
        v6.map_or(Ok(()), |subnet| write!(f, "&{}-{}", subnet.ip(), subnet.prefix()))
    }
}

impl FromStr for SubnetKey {
    type Err = ParseKeyError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (ipv4, ipv6) = match name.split_once('&') {
            Some((ipv4, ipv6)) => (ipv4, Some(ipv6)),
            None => (name, None),
        };
        let (addr, len) = split::<Ipv4Addr>(ipv4)?;
        let v4 = Ipv4Network::new(addr, len).map_err(|_| ParseKeyError)?;
        let v4 = Some(v4).filter(|_| ipv4 != NO_IPV4);
        let v6 = ipv6
            .map(|text| {
                let (addr, len) = split::<Ipv6Addr>(text)?;
                Ipv6Network::new(addr, len).map_err(|_| ParseKeyError)
            })
            .transpose()?;
        let key = Self(Subnets { v4, v6 });
        if key.to_string() == name { Ok(key) } else { Err(ParseKeyError) }
    }
}

/// `<address>-<length>`
fn split<A: FromStr>(text: &str) -> Result<(A, u8), ParseKeyError> {
    let (addr, len) = text.rsplit_once('-').ok_or(ParseKeyError)?;
    Ok((addr.parse().map_err(|_| ParseKeyError)?, len.parse().map_err(|_| ParseKeyError)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{Key, SubnetKey, Subnets};

    #[rstest]
    #[case("10.12.13.0-24", "10.12.13.0/24")]
    #[case("10.12.13.0-24&fd00:12:13::-56", "10.12.13.0/24 and fd00:12:13::/56")]
    #[case::ipv6_only("0.0.0.0-0&fd00:10:5:4a::-64", "fd00:10:5:4a::/64")]
    #[case::neither("0.0.0.0-0", "none")]
    #[case::host_bits_are_kept("10.12.13.7-24", "10.12.13.7/24")]
    fn names_of_subnets(#[case] name: &str, #[case] subnets: &str) {
        let key: SubnetKey = name.parse().unwrap();
        assert_eq!(key.0.to_string(), subnets);
        assert_eq!(key.to_string(), name);
    }

    #[rstest]
    #[case("10")]
    #[case("10.12.13.0")]
    #[case("10.12.13-24")]
    #[case("10.12.13.300-24")]
    #[case("10.12.13.0-24hi")]
    #[case("&2001::-56")]
    #[case("10.12.13.0-24&:12:13:-56")]
    #[case("10.12.13.0-24&20011::-56")]
    #[case("10.12.13.0-24&2001-56")]
    #[case("10.12.13.0-24&2001::")]
    #[case("10.12.13.0-24&2001::-56hi")]
    #[case::empty("")]
    #[case::length_too_long("10.12.13.0-33")]
    #[case::leading_zero_of_address("10.012.13.0-24")]
    #[case::leading_zero_of_length("10.12.13.0-024")]
    #[case::sign("10.12.13.0-+24")]
    #[case::text_before("x10.12.13.0-24")]
    #[case::slash("10.12.13.0-24/x")]
    #[case::upper_case("10.12.13.0-24&FD00::-56")]
    #[case::not_compressed("10.12.13.0-24&fd00:0:0:0:0:0:0:0-56")]
    fn other_names_are_junk(#[case] name: &str) {
        assert_eq!(Key::from_bytes(name.as_bytes()), Key::Junk(name.to_owned()));
    }

    #[test]
    fn junk_fits_a_log_line() {
        assert_eq!(Key::from_bytes(b"10.5.1.0-24\nx\xff").to_string(), "10.5.1.0-24\\nx\u{fffd}");
        assert_eq!(Key::from_bytes(&[b'x'; 100_000]).to_string().chars().count(), 81);
    }

    #[test]
    fn long_junk_takes_little_room_and_is_told_apart() {
        let long = |last| Key::from_bytes(&[&[b'x'; 1 << 20][..], &[last]].concat());
        let Key::Junk(text) = long(1) else { panic!("a megabyte names no subnet") };
        assert!(text.len() < 256, "{} bytes", text.len());
        assert_eq!(long(1), long(1));
        assert_ne!(long(1), long(2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key(name: Vec<u8>) {
            let key = Key::from_bytes(&name);
            if matches!(key, Key::Subnet(_)) {
                prop_assert_eq!(key.to_string().into_bytes(), name);
            }
        }

        #[test]
        fn what_is_formatted_is_parsed(addr: [u8; 4], len in 0u8..=32, v6: Option<([u8; 16], u8)>) {
            let v4 = ipnetwork::Ipv4Network::new(addr.into(), len).unwrap();
            let key = SubnetKey(Subnets {
                v4: Some(v4).filter(|v4| !(v4.ip().is_unspecified() && v4.prefix() == 0)),
                v6: v6.map(|(addr, len)| ipnetwork::Ipv6Network::new(addr.into(), len % 129).unwrap()),
            });
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
}
