//! Failures that repeat, and must not be logged each time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The same error is logged again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// Something that is tried repeatedly, and must not be logged each time.
#[derive(Default)]
pub struct LogThrottle(Option<(String, Instant)>);

impl LogThrottle {
    /// Whether to log `text`: it is another error than before, or was not logged for long.
    pub fn should_log(&mut self, text: &str) -> bool {
        let is_repeated =
            self.0.as_ref().is_some_and(|(logged, when)| logged == text && when.elapsed() < REMINDER);
        if !is_repeated {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        !is_repeated
    }
}

/// Many things of one kind that are logged one by one, such as refused leases: of each kind a few a minute, and then how
/// many there were.
#[derive(Debug)]
pub struct LogBudget {
    few: usize,
    kinds: BTreeMap<&'static str, (Instant, usize)>,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self::of(Self::FEW)
    }
}

impl LogBudget {
    /// So many of one kind are logged within [`REMINDER`] by default.
    pub const FEW: usize = 20;

    /// So `few` of one kind are logged within [`REMINDER`].
    #[must_use]
    pub const fn of(few: usize) -> Self {
        Self { few, kinds: BTreeMap::new() }
    }

    /// Whether to log one more of `kind`; and how many of it were not logged in the time before, once that is over.
    pub fn spend(&mut self, kind: &'static str) -> (bool, Option<usize>) {
        let (since, count) = self.kinds.entry(kind).or_insert_with(|| (Instant::now(), 0));
        let mut unlogged = None;
        if since.elapsed() >= REMINDER {
            unlogged = count.checked_sub(self.few).filter(|unlogged| *unlogged > 0);
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        (*count <= self.few, unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::{LogBudget, LogThrottle};

    #[tokio::test(start_paused = true)]
    async fn a_few_of_each_kind_are_logged_and_the_others_counted() {
        let mut budget = LogBudget::default();
        let logged = (0..100).filter(|_| budget.spend("host_bits").0).count();
        assert_eq!(logged, LogBudget::FEW);
        assert_eq!(budget.spend("vni"), (true, None), "another kind");
        tokio::time::advance(super::REMINDER).await;
        assert_eq!(budget.spend("host_bits"), (true, Some(100 - LogBudget::FEW)));
        assert_eq!(budget.spend("host_bits"), (true, None), "told once");
        tokio::time::advance(super::REMINDER).await;
        assert_eq!(budget.spend("vni"), (true, None), "there were not too many");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_error_is_logged_once_a_minute() {
        let mut throttle = LogThrottle::default();
        assert!(throttle.should_log("away"));
        assert!(!throttle.should_log("away"));
        assert!(throttle.should_log("refused"), "another error");
        tokio::time::advance(super::REMINDER).await;
        assert!(throttle.should_log("refused"), "a reminder");
    }
}
