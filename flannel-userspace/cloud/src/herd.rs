//! What keeps many hosts from asking the same cloud at the same moment.

use std::ops::Range;
use std::time::Duration;

use flannel_control::chance;

/// What each host adds to the time in which all of them begin: together they ask 17 times a second. EC2 allows 20 to read
/// something.
const SHARE: Duration = Duration::from_millis(60);
/// What each host without a route adds to the time in which all of them change something: EC2 allows 5 changes of a kind a
/// second.
const SHARE_OF_CHANGES: Duration = Duration::from_millis(200);
/// Nobody waits longer before it changes something.
const LONGEST_CHANGES: Duration = Duration::from_secs(300);
/// Nobody waits longer before it begins.
const LONGEST_START: Duration = Duration::from_secs(60);
/// Between these parts of a period lies the next look.
const SPREAD: Range<f64> = 0.8..1.2;
/// When what was put right is looked at again: clouds show what they were told a little later.
const CONFIRM: Duration = Duration::from_secs(30);

/// The pause before the first look of one of `hosts`, which may all have been started at once.
pub(crate) fn start(hosts: usize) -> Duration {
    spread(hosts, SHARE, LONGEST_START)
}

/// The pause before the first change by one of `hosts` that all have something to change.
pub(crate) fn change(hosts: usize) -> Duration {
    spread(hosts, SHARE_OF_CHANGES, LONGEST_CHANGES)
}

fn spread(hosts: usize, share: Duration, longest: Duration) -> Duration {
    let window = share.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX)).min(longest);
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
        assert!((0..100).all(|_| start(3) <= Duration::from_millis(180)));
        let starts: Vec<Duration> = (0..1000).map(|_| start(1000)).collect();
        let busiest =
            (0..60).map(|second| starts.iter().filter(|start| start.as_secs() == second).count()).max();
        assert!(busiest.is_some_and(|busiest| busiest < 40), "{busiest:?} in one second");
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
