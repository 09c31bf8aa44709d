//! What keeps many hosts from asking the same cloud at the same moment.

use std::ops::Range;
use std::time::Duration;

use flannel_control::chance;

/// What each host adds to the time in which all of them begin: together they ask 20 times a second, at which rate clouds
/// refill what they allow an account.
const SHARE: Duration = Duration::from_millis(50);
/// Nobody waits longer before it begins.
const LONGEST_START: Duration = Duration::from_secs(60);
/// Between these parts of a period lies the next look.
const SPREAD: Range<f64> = 0.8..1.2;
/// When what was put right is looked at again: clouds show what they were told a little later.
const CONFIRM: Duration = Duration::from_secs(30);

/// The pause before the first look of one of `hosts`, which may all have been started at once.
pub(crate) fn start(hosts: usize) -> Duration {
    let window = SHARE.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX)).min(LONGEST_START);
    window.mul_f64(chance::between(0.0..1.0))
}

/// The pause until everything is looked at again.
pub(crate) fn period(period: Duration) -> Duration {
    period.mul_f64(chance::between(SPREAD))
}

/// The pause until what was put right is looked at again.
pub(crate) fn confirmation(longest: Duration) -> Duration {
    period(CONFIRM.min(longest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST_START, period, start};

    #[test]
    fn few_hosts_begin_at_once_and_many_one_after_the_other() {
        assert!((0..100).all(|_| start(3) <= Duration::from_millis(150)));
        let starts: Vec<Duration> = (0..1000).map(|_| start(1000)).collect();
        let busiest =
            (0..50).map(|second| starts.iter().filter(|start| start.as_secs() == second).count()).max();
        assert!(busiest.is_some_and(|busiest| busiest < 45), "{busiest:?} in one second");
        assert!((0..100).all(|_| start(usize::MAX) <= LONGEST_START));
    }

    #[test]
    fn looks_do_not_fall_into_step() {
        let pauses: Vec<Duration> = (0..100).map(|_| period(Duration::from_secs(300))).collect();
        assert!(pauses.iter().all(|pause| (240..=360).contains(&pause.as_secs())));
        assert!(
            pauses.iter().any(|pause| pause.as_secs() < 270)
                && pauses.iter().any(|pause| pause.as_secs() > 330)
        );
    }
}
