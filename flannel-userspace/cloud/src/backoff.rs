//! Pauses after failures, with full jitter: each is any time up to a limit that doubles. Hosts that failed at the same
//! moment then come back evenly spread.

use std::time::Duration;

use flannel_control::chance;

/// Limit of the first pause.
const FIRST: Duration = Duration::from_secs(2);
/// Limit of the longest: a thousand hosts that wait for the same cloud ask it 17 times a second in all.
const LONGEST: Duration = Duration::from_secs(120);
/// No pause is shorter.
const SHORTEST: Duration = Duration::from_millis(100);

/// The pauses of a row of failures.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let limit = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        limit.mul_f64(chance::between(0.0..1.0)).max(SHORTEST)
    }

    /// The row has ended.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LONGEST, SHORTEST};

    #[test]
    fn pauses_are_spread_from_nothing_to_a_limit_that_doubles() {
        let limits = [2, 4, 8, 16, 32, 64, 120, 120];
        let rows: Vec<Vec<Duration>> = (0..500)
            .map(|_| {
                let mut backoff = Backoff::default();
                limits.iter().map(|_| backoff.next()).collect()
            })
            .collect();
        for (place, limit) in limits.iter().enumerate() {
            let limit = Duration::from_secs(*limit);
            let pauses = || rows.iter().map(|row| row[place]);
            assert!(pauses().all(|pause| (SHORTEST..=limit).contains(&pause)));
            let below = pauses().filter(|pause| *pause < limit / 2).count();
            assert!((150..350).contains(&below), "{below} of 500 in the lower half of {limit:?}");
        }
    }

    #[test]
    fn a_success_begins_again() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(2));
    }
}
