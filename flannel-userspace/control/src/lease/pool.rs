//! The subnets of a network that may be leased, and the choice of a free one. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_model::config::cidr::overlap;
use flannel_model::family::Family;
use ipnetwork::IpNetwork;
use rand::Rng;
use rand::seq::IndexedRandom;

/// The subnets a host may lease: all of one length, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    first: IpAddr,
    last: IpAddr,
    len: u8,
}

/// The ends do not describe a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Longer than an address; and one of 0 leaves nothing to choose.
    #[error("SubnetLen {len} is not between 1 and {longest}")]
    Length {
        /// The length.
        len: u8,
        /// Length of an address.
        longest: u8,
    },
    /// An end has host bits.
    #[error("{0}/{1} has host bits: SubnetMin and SubnetMax must be on a SubnetLen boundary")]
    Boundary(IpAddr, u8),
    /// The ends are of two families.
    #[error("{0} and {1} are not of one IP version: SubnetMin and SubnetMax must be")]
    Families(IpAddr, IpAddr),
}

/// Nothing is left to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of subnets: none of the {total} subnets of length /{len} from {first} to {last} is free; widen \
     SubnetMin..SubnetMax, lengthen SubnetLen, or delete the leases of hosts that are gone"
)]
pub struct OutOfSubnets {
    /// First subnet of the pool.
    pub first: IpAddr,
    /// Last subnet of the pool.
    pub last: IpAddr,
    /// Their prefix length.
    pub len: u8,
    /// How many subnets the pool has; none if SubnetMin is above SubnetMax.
    pub total: u128,
}

impl Pool {
    /// The subnets of length `len` from `first` to `last`, both included: SubnetMin, SubnetMax and SubnetLen
    /// of the configuration. Where `first` is above `last` the pool is empty.
    ///
    /// # Errors
    /// The length is none of the family, an end has host bits, or the ends are of two families.
    pub fn new(first: IpAddr, last: IpAddr, len: u8) -> Result<Self, PoolError> {
        let family = Family::from(first);
        if family != Family::from(last) {
            return Err(PoolError::Families(first, last));
        }
        if !(1..=family.bits()).contains(&len) {
            return Err(PoolError::Length { len, longest: family.bits() });
        }
        let pool = Self { first, last, len };
        match [first, last].into_iter().find(|end| !bits(*end).is_multiple_of(pool.step())) {
            Some(end) => Err(PoolError::Boundary(end, len)),
            None => Ok(pool),
        }
    }

    /// Whether `subnet` is one of the pool's.
    #[must_use]
    pub fn contains(&self, subnet: IpNetwork) -> bool {
        Family::from(subnet) == self.family()
            && subnet.prefix() == self.len
            && subnet.ip() == subnet.network()
            && (self.first..=self.last).contains(&subnet.ip())
    }

    /// How many subnets it has.
    #[must_use]
    pub fn total(&self) -> u128 {
        bits(self.last).checked_sub(bits(self.first)).map_or(0, |span| span / self.step() + 1)
    }

    fn family(&self) -> Family {
        self.first.into()
    }

    /// Addresses per subnet.
    fn step(&self) -> u128 {
        1 << (self.family().bits() - self.len)
    }

    /// The first `limit` subnets that overlap nothing of `taken`, in ascending order: one pass over the
    /// sorted networks, however large the pool.
    fn free(&self, taken: &[IpNetwork], limit: usize) -> Vec<IpNetwork> {
        let last = bits(self.last);
        let of_family = taken.iter().filter(|network| Family::from(**network) == self.family());
        let mut taken: Vec<(u128, u128)> = of_family.map(bounds).collect();
        taken.sort_unstable();
        let mut free = Vec::new();
        let mut next = Some(bits(self.first));
        let taken = taken.into_iter().map(|(start, stop)| (Some(start), stop));
        // Behind the last of them, up to the end of the pool, nothing is taken.
        for (start, stop) in taken.chain([(None, last)]) {
            while let Some(at) = next.filter(|at| *at <= last && free.len() < limit) {
                if start.is_some_and(|start| start <= at + (self.step() - 1)) {
                    break;
                }
                free.extend(self.subnet(at));
                next = at.checked_add(self.step());
            }
            if next.is_some_and(|next| stop >= next) {
                next = stop.checked_add(1).and_then(|behind| behind.checked_next_multiple_of(self.step()));
            }
        }
        free
    }

    fn subnet(&self, bits: u128) -> Option<IpNetwork> {
        let address = match self.family() {
            Family::V4 => Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        };
        IpNetwork::new(address, self.len).ok()
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// First and last address of a network.
fn bounds(network: &IpNetwork) -> (u128, u128) {
    (bits(network.network()), bits(network.broadcast()))
}

/// Chooses a subnet that overlaps nothing of `taken`: `previous` if it is one, else one of the first `window`
/// free ones at random, so that hosts that start together rarely choose the same.
///
/// # Errors
/// Nothing is free.
pub fn allocate(
    pool: &Pool,
    taken: &[IpNetwork],
    previous: Option<IpNetwork>,
    window: usize,
    rng: &mut impl Rng,
) -> Result<IpNetwork, OutOfSubnets> {
    let is_free = |subnet: &IpNetwork| !taken.iter().any(|network| overlap(*network, *subnet));
    if let Some(subnet) = previous.filter(|subnet| pool.contains(*subnet)).filter(is_free) {
        return Ok(subnet);
    }
    pool.free(taken, window.max(1)).choose(rng).copied().ok_or_else(|| OutOfSubnets {
        first: pool.first,
        last: pool.last,
        len: pool.len,
        total: pool.total(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use ipnetwork::IpNetwork;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rstest::rstest;

    use super::{Pool, allocate, overlap};

    fn pool(first: &str, last: &str, len: u8) -> Pool {
        Pool::new(first.parse().unwrap(), last.parse().unwrap(), len).unwrap()
    }

    fn networks(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(pool: &Pool, taken: &[&str], previous: Option<&str>) -> Result<String, String> {
        let previous = previous.map(|text| text.parse().unwrap());
        allocate(pool, &networks(taken), previous, 100, &mut StdRng::seed_from_u64(1))
            .map(|subnet| subnet.to_string())
            .map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::length_0("10.5.0.0", "10.5.0.0", 0)]
    #[case::length_33("10.5.0.0", "10.5.0.0", 33)]
    #[case::first_has_host_bits("10.5.0.1", "10.5.9.0", 24)]
    #[case::last_has_host_bits("10.5.0.0", "10.5.9.128", 24)]
    #[case::length_129("fd00::", "fd00::", 129)]
    #[case::two_families("10.5.0.0", "fd00::", 24)]
    fn ends_that_describe_no_pool(#[case] first: IpAddr, #[case] last: IpAddr, #[case] len: u8) {
        assert!(Pool::new(first, last, len).is_err());
    }

    #[rstest]
    #[case("10.5.1.0", "10.5.255.0", 24, 255)]
    #[case::one("10.5.1.0", "10.5.1.0", 24, 1)]
    #[case::min_above_max("10.5.2.0", "10.5.1.0", 24, 0)]
    #[case::everything("0.0.0.0", "255.255.255.255", 32, 1 << 32)]
    #[case::ipv6("fd00:10:5:1::", "fd00:10:5:ffff::", 64, 65535)]
    fn total_of_a_pool(#[case] first: &str, #[case] last: &str, #[case] len: u8, #[case] total: u128) {
        assert_eq!(pool(first, last, len).total(), total);
    }

    #[rstest]
    #[case::free("10.5.7.0/24", true)]
    #[case::taken("10.5.2.0/24", false)]
    #[case::wrong_length("10.5.7.0/25", false)]
    #[case::host_bits("10.5.7.1/24", false)]
    #[case::outside("10.6.7.0/24", false)]
    fn previous_subnet_if_free_and_compatible(#[case] previous: &str, #[case] kept: bool) {
        let subnet = chosen(&pool("10.5.1.0", "10.5.255.0", 24), &["10.5.2.0/24"], Some(previous)).unwrap();
        assert_eq!(subnet == previous, kept, "{subnet}");
    }

    #[rstest]
    #[case::equal(&["10.5.1.0/24", "10.5.3.0/24"])]
    #[case::longer(&["10.5.1.128/25", "10.5.3.7/32"])]
    #[case::shorter_and_unaligned(&["10.5.0.0/23", "10.5.3.0/24"])]
    #[case::duplicates_unsorted(&["10.5.3.0/24", "10.5.1.0/24", "10.5.3.0/24"])]
    #[case::host_bits(&["10.5.1.9/24", "10.5.3.9/24"])]
    fn the_only_gap_is_found(#[case] taken: &[&str]) {
        assert_eq!(chosen(&pool("10.5.1.0", "10.5.3.0", 24), taken, None).as_deref(), Ok("10.5.2.0/24"));
    }

    #[rstest]
    #[case::everything_taken("10.5.1.0", "10.5.2.0", &["10.5.1.0/24", "10.5.2.0/24"], "none of the 2 subnets")]
    #[case::covered_by_one("10.5.1.0", "10.5.2.0", &["10.0.0.0/8"], "none of the 2 subnets")]
    #[case::covered_by_all("10.5.1.0", "10.5.2.0", &["0.0.0.0/0"], "none of the 2 subnets")]
    #[case::min_above_max("10.5.2.0", "10.5.1.0", &[], "none of the 0 subnets")]
    fn out_of_subnets(
        #[case] first: &str,
        #[case] last: &str,
        #[case] taken: &[&str],
        #[case] message: &str,
    ) {
        let error = chosen(&pool(first, last, 24), taken, None).unwrap_err();
        assert!(error.contains("out of subnets") && error.contains(message), "{error}");
    }

    #[test]
    fn the_last_address_of_ipv4_is_no_obstacle() {
        let pool = pool("255.255.254.0", "255.255.255.0", 24);
        assert_eq!(chosen(&pool, &["255.255.254.0/24"], None).as_deref(), Ok("255.255.255.0/24"));
        assert!(chosen(&pool, &["255.255.254.0/23"], None).is_err());
    }

    #[test]
    fn choices_spread_over_the_first_hundred_free() {
        let pool = pool("10.1.0.0", "10.255.255.0", 24);
        let mut rng = StdRng::seed_from_u64(1);
        let choices: BTreeSet<_> =
            (0..2000).map(|_| allocate(&pool, &[], None, 100, &mut rng).unwrap()).collect();
        assert_eq!(choices.len(), 100);
        assert_eq!(choices.last().map(ToString::to_string).as_deref(), Some("10.1.99.0/24"));
    }

    #[test]
    fn fifty_thousand_leases_take_no_time() {
        let pool = pool("10.0.0.0", "10.255.255.0", 24);
        let taken: Vec<IpNetwork> = (0..50_000).map(|n| network(0x0a00_0000 + (n << 8), 24)).collect();
        let start = std::time::Instant::now();
        let subnet = allocate(&pool, &taken, None, 1, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(subnet.to_string(), "10.195.80.0/24");
        assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
    }

    #[test]
    fn the_last_address_of_ipv6_is_no_obstacle() {
        let pool = pool("ffff:ffff:ffff:fffe::", "ffff:ffff:ffff:ffff::", 64);
        let taken = ["ffff:ffff:ffff:fffe::/64", "0.0.0.0/0"];
        assert_eq!(chosen(&pool, &taken, None).as_deref(), Ok("ffff:ffff:ffff:ffff::/64"));
        assert!(chosen(&pool, &["::/0"], None).is_err());
    }

    fn network(bits: u32, len: u8) -> IpNetwork {
        IpNetwork::new(Ipv4Addr::from_bits(bits).into(), len).unwrap()
    }

    proptest! {
        #[test]
        fn the_choice_is_in_the_pool_and_overlaps_nothing(
            first in 0u32..300, span in 0u32..300, len in 20u8..=28, seed: u64,
            taken in prop::collection::vec((0u32..80_000, 16u8..=32), 0..60),
        ) {
            let step = 1u32 << (32 - len);
            let base = 0x0a00_0000;
            let (first, last) = (base + first * step, base + (first + span) * step);
            let pool = Pool::new(network(first, 32).ip(), network(last, 32).ip(), len).unwrap();
            let taken: Vec<_> = taken.into_iter().map(|(addr, len)| network(base + addr, len)).collect();
            let free: Vec<_> = (first..=last).step_by(step as usize)
                .map(|addr| network(addr, len))
                .filter(|subnet| !taken.iter().any(|network| overlap(*network, *subnet)))
                .collect();
            prop_assert_eq!(&pool.free(&taken, usize::MAX), &free);
            match allocate(&pool, &taken, None, 100, &mut StdRng::seed_from_u64(seed)) {
                Ok(subnet) => prop_assert!(pool.contains(subnet) && free.contains(&subnet)),
                Err(_) => prop_assert!(free.is_empty()),
            }
        }
    }
}
