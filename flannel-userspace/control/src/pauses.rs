//! Pauses between attempts at what may succeed later.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use crate::chance;

/// Pauses from `first` to `longest`, each about twice the one before, without end. They are randomised: hosts that lost
/// the same etcd must not all come back to it at the same moment.
pub fn growing((first, longest): (Duration, Duration)) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        // Chance adds as much again, at most.
        .with_max_delay(longest / 2)
        .with_factor(2.0)
        .with_jitter()
        .with_jitter_seed(chance::number())
        .without_max_times()
        .build()
}

/// What is done again and again takes at most this fraction of the time.
const UNHURRIED: u32 = 1000;
/// However long it takes: once it may have had to wait for a minute, for a connection or for a lock.
const RAREST: Duration = Duration::from_secs(15 * 60);

/// The pause before something is done again that takes so much time, of at least `least`.
pub fn unhurried(took: Duration, least: Duration) -> Duration {
    took.saturating_mul(UNHURRIED).clamp(least, RAREST.max(least))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::{growing, unhurried};

    #[rstest]
    #[case::in_no_time(0, 60_000)]
    #[case::of_a_few(5, 60_000)]
    #[case::of_many(300, 300_000)]
    #[case::over_a_narrow_link(60_000, 900_000)]
    #[case::never(u64::MAX, 900_000)]
    fn a_safety_net_is_spread_in_time(#[case] took: u64, #[case] pause: u64) {
        let pauses = unhurried(Duration::from_millis(took), Duration::from_secs(60));
        assert_eq!(pauses, Duration::from_millis(pause));
    }

    #[test]
    fn none_is_longer_than_the_longest() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(2));
        let pauses: Vec<Duration> = growing((first, longest)).take(1000).collect();
        assert_eq!(pauses.len(), 1000);
        assert!(pauses.iter().all(|pause| (first..=longest).contains(pause)), "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| *pause >= longest / 2), "{pauses:?}");
        assert!(pauses[0] <= 2 * first && pauses[10] != pauses[11], "{pauses:?}");
    }
}
