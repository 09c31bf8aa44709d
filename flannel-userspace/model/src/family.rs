//! IPv4 and IPv6, and what a host has of each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl Family {
    /// Both, in the order in which they are written.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Length of an address in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl From<IpNetwork> for Family {
    fn from(network: IpNetwork) -> Self {
        network.ip().into()
    }
}

/// One thing for each family: families are configured, fail and are served one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerFamily<T, U = T> {
    /// What there is for IPv4.
    pub v4: Option<T>,
    /// What there is for IPv6.
    pub v6: Option<U>,
}

/// One network of each family at most.
pub type Subnets = PerFamily<Ipv4Network, Ipv6Network>;

/// One address of each family at most.
pub type Addresses = PerFamily<Ipv4Addr, Ipv6Addr>;

impl<T, U> PerFamily<T, U> {
    /// Nothing for either family.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// Something for IPv4 alone.
    #[must_use]
    pub const fn only_v4(v4: T) -> Self {
        Self { v4: Some(v4), v6: None }
    }

    /// Whether there is nothing for either family.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// These, with those of `others` where there is none.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { v4: self.v4.or(others.v4), v6: self.v6.or(others.v6) }
    }
}

impl<T, U> Default for PerFamily<T, U> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> PerFamily<T> {
    /// What there is for `family`.
    #[must_use]
    pub const fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Has this for `family`.
    pub fn set(&mut self, family: Family, value: Option<T>) {
        match family {
            Family::V4 => self.v4 = value,
            Family::V6 => self.v6 = value,
        }
    }

    /// What there is, and for which family.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        let v4 = self.v4.iter().map(|value| (Family::V4, value));
        v4.chain(self.v6.iter().map(|value| (Family::V6, value)))
    }

    /// What there is.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.v4.iter().chain(&self.v6)
    }

    /// The same for each family with what `change` makes of it.
    pub fn map<V>(self, mut change: impl FnMut(Family, T) -> V) -> PerFamily<V> {
        PerFamily {
            v4: self.v4.map(|value| change(Family::V4, value)),
            v6: self.v6.map(|value| change(Family::V6, value)),
        }
    }
}

impl Subnets {
    /// The network of `family`.
    #[must_use]
    pub fn get(&self, family: Family) -> Option<IpNetwork> {
        match family {
            Family::V4 => self.v4.map(IpNetwork::V4),
            Family::V6 => self.v6.map(IpNetwork::V6),
        }
    }

    /// The same with `network` as that of its family.
    #[must_use]
    pub fn with(self, network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(network) => Self { v4: Some(network), ..self },
            IpNetwork::V6(network) => Self { v6: Some(network), ..self },
        }
    }

    /// The networks there are.
    pub fn iter(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        self.v4.map(IpNetwork::V4).into_iter().chain(self.v6.map(IpNetwork::V6))
    }
}

impl Addresses {
    /// The address of `family`.
    #[must_use]
    pub fn get(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// The one that a host is known by where it is known by one: as with stock flannel that of IPv4, else that of IPv6.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.iter().next()
    }

    /// The addresses there are.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl From<IpNetwork> for Subnets {
    fn from(network: IpNetwork) -> Self {
        Self::NONE.with(network)
    }
}

impl From<Ipv4Network> for Subnets {
    fn from(network: Ipv4Network) -> Self {
        Self::only_v4(network)
    }
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Self {
        Self::only_v4(address)
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Self { v4: None, v6: Some(address) },
        }
    }
}

impl<T: fmt::Display, U: fmt::Display> fmt::Display for PerFamily<T, U> {
    /// What there is, as in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} and {v6}"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Family, PerFamily, Subnets};

    fn subnets(v4: Option<&str>, v6: Option<&str>) -> Subnets {
        Subnets { v4: v4.map(|text| text.parse().unwrap()), v6: v6.map(|text| text.parse().unwrap()) }
    }

    #[rstest]
    #[case(None, None, "none", &[])]
    #[case(Some("10.5.1.0/24"), None, "10.5.1.0/24", &[Family::V4])]
    #[case(None, Some("fd00::/64"), "fd00::/64", &[Family::V6])]
    #[case(Some("10.5.1.0/24"), Some("fd00::/64"), "10.5.1.0/24 and fd00::/64", &[Family::V4, Family::V6])]
    fn what_there_is_in_words_and_by_family(
        #[case] v4: Option<&str>,
        #[case] v6: Option<&str>,
        #[case] words: &str,
        #[case] families: &[Family],
    ) {
        let subnets = subnets(v4, v6);
        assert_eq!(subnets.to_string(), words);
        assert_eq!(subnets.iter().map(Family::from).collect::<Vec<_>>(), families);
        assert_eq!(subnets.is_empty(), families.is_empty());
        for family in Family::ALL {
            assert_eq!(subnets.get(family).map(Family::from), families.contains(&family).then_some(family));
        }
    }

    #[test]
    fn each_family_has_its_own() {
        let mut bits = PerFamily::only_v4(32);
        bits.set(Family::V6, Some(128));
        assert!(bits.iter().all(|(family, bits)| family.bits() == *bits && bits_of(family) == *bits));
        assert_eq!(bits.map(|family, bits| (family, bits + 1)).v6, Some((Family::V6, 129)));
    }

    fn bits_of(family: Family) -> u8 {
        let any = match family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        Family::from(any.parse::<ipnetwork::IpNetwork>().unwrap()).bits()
    }
}
