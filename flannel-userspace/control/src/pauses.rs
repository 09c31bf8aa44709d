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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::growing;

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
