//! The subnets of a network that may be leased, and the choice of a free one. Pure.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use rand::Rng;
use rand::seq::IndexedRandom;

/// The subnets a host may lease: all of one length, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    last: u32,
    len: u8,
}

/// The ends do not describe a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A prefix length of IPv4 is at most 32; one of 0 leaves nothing to choose.
    #[error("SubnetLen {0} is not between 1 and 32")]
    Length(u8),
    /// An end has host bits.
    #[error("{0}/{1} has host bits: SubnetMin and SubnetMax must be on a SubnetLen boundary")]
    Boundary(Ipv4Addr, u8),
}

/// Nothing is left to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of subnets: none of the {total} subnets of length /{len} from {first} to {last} is free; widen \
     SubnetMin..SubnetMax, lengthen SubnetLen, or delete the leases of hosts that are gone"
)]
pub struct OutOfSubnets {
    /// First subnet of the pool.
    pub first: Ipv4Addr,
    /// Last subnet of the pool.
    pub last: Ipv4Addr,
    /// Their prefix length.
    pub len: u8,
    /// How many subnets the pool has; none where SubnetMin is above SubnetMax.
    pub total: u64,
}

impl Pool {
    /// The subnets of length `len` from `first` to `last`, both included: SubnetMin, SubnetMax and SubnetLen
    /// of the configuration. Where `first` is above `last` the pool is empty.
    ///
    /// # Errors
    /// The length is none of IPv4, or an end has host bits.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr, len: u8) -> Result<Self, PoolError> {
        if !(1..=32).contains(&len) {
            return Err(PoolError::Length(len));
        }
        let pool = Self { first: first.into(), last: last.into(), len };
        match [first, last].into_iter().find(|end| u64::from(u32::from(*end)) % pool.step() != 0) {
            Some(end) => Err(PoolError::Boundary(end, len)),
            None => Ok(pool),
        }
    }

    /// Whether `subnet` is one of the pool's.
    #[must_use]
    pub fn contains(&self, subnet: Ipv4Network) -> bool {
        subnet.prefix() == self.len
            && subnet.ip() == subnet.network()
            && (self.first..=self.last).contains(&subnet.ip().into())
    }

    /// How many subnets it has.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.last).checked_sub(self.first.into()).map_or(0, |span| span / self.step() + 1)
    }

    /// Addresses per subnet.
    const fn step(&self) -> u64 {
        1 << (32 - self.len)
    }

    /// The first `limit` subnets that overlap nothing of `taken`, in ascending order: one pass over the
    /// sorted networks, however large the pool.
    fn free(&self, taken: &[Ipv4Network], limit: usize) -> Vec<Ipv4Network> {
        let mut taken: Vec<(u64, u64)> = taken.iter().map(bounds).collect();
        taken.sort_unstable();
        let end = u64::from(self.last) + self.step();
        let mut free = Vec::new();
        let mut next = u64::from(self.first);
        for (start, stop) in taken.into_iter().chain([(end, end)]) {
            while next + self.step() <= start.min(end) && free.len() < limit {
                free.extend(self.subnet(next));
                next += self.step();
            }
            if stop > next {
                next = stop.next_multiple_of(self.step());
            }
        }
        free
    }

    fn subnet(&self, addr: u64) -> Option<Ipv4Network> {
        let addr = u32::try_from(addr).ok()?;
        Ipv4Network::new(addr.into(), self.len).ok()
    }
}

/// First address of a network and the one behind its last.
fn bounds(network: &Ipv4Network) -> (u64, u64) {
    (u32::from(network.network()).into(), u64::from(u32::from(network.broadcast())) + 1)
}

/// Chooses a subnet that overlaps nothing of `taken`: `previous` if it is one, else one of the first `window`
/// free ones at random, so that hosts that start together rarely choose the same.
///
/// # Errors
/// Nothing is free.
pub fn allocate(
    pool: &Pool,
    taken: &[Ipv4Network],
    previous: Option<Ipv4Network>,
    window: usize,
    rng: &mut impl Rng,
) -> Result<Ipv4Network, OutOfSubnets> {
    let is_free = |subnet: &Ipv4Network| !taken.iter().any(|network| network.overlaps(*subnet));
    if let Some(subnet) = previous.filter(|subnet| pool.contains(*subnet)).filter(is_free) {
        return Ok(subnet);
    }
    pool.free(taken, window.max(1)).choose(rng).copied().ok_or_else(|| OutOfSubnets {
        first: pool.first.into(),
        last: pool.last.into(),
        len: pool.len,
        total: pool.total(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use ipnetwork::Ipv4Network;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rstest::rstest;

    use super::{Pool, PoolError, allocate};

    fn pool(first: &str, last: &str, len: u8) -> Pool {
        Pool::new(first.parse().unwrap(), last.parse().unwrap(), len).unwrap()
    }

    fn networks(texts: &[&str]) -> Vec<Ipv4Network> {
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
    fn ends_that_describe_no_pool(#[case] first: Ipv4Addr, #[case] last: Ipv4Addr, #[case] len: u8) {
        assert!(matches!(Pool::new(first, last, len), Err(PoolError::Length(_) | PoolError::Boundary(..))));
    }

    #[rstest]
    #[case("10.5.1.0", "10.5.255.0", 24, 255)]
    #[case::one("10.5.1.0", "10.5.1.0", 24, 1)]
    #[case::min_above_max("10.5.2.0", "10.5.1.0", 24, 0)]
    #[case::everything("0.0.0.0", "255.255.255.255", 32, 1 << 32)]
    fn total_of_a_pool(#[case] first: &str, #[case] last: &str, #[case] len: u8, #[case] total: u64) {
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
        let taken: Vec<Ipv4Network> =
            (0..50_000).map(|n| Ipv4Network::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap()).collect();
        let start = std::time::Instant::now();
        let subnet = allocate(&pool, &taken, None, 1, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(subnet.to_string(), "10.195.80.0/24");
        assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
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
            let pool = Pool::new(first.into(), last.into(), len).unwrap();
            let taken: Vec<_> =
                taken.into_iter().map(|(addr, len)| Ipv4Network::new((base + addr).into(), len).unwrap()).collect();
            let free: Vec<_> = (first..=last).step_by(step as usize)
                .map(|addr| Ipv4Network::new(addr.into(), len).unwrap())
                .filter(|subnet| !taken.iter().any(|network| network.overlaps(*subnet)))
                .collect();
            prop_assert_eq!(&pool.free(&taken, usize::MAX), &free);
            match allocate(&pool, &taken, None, 100, &mut StdRng::seed_from_u64(seed)) {
                Ok(subnet) => prop_assert!(pool.contains(subnet) && free.contains(&subnet)),
                Err(_) => prop_assert!(free.is_empty()),
            }
        }
    }
}
