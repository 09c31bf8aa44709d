//! Failures that repeat, and must not be logged each time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The same error is logged again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// So many different errors are remembered.
const MOST_ERRORS: usize = 16;

/// Something that is tried repeatedly, and must not be logged each time, also where it fails now for one reason, now for
/// another.
#[derive(Default)]
pub struct LogThrottle(BTreeMap<String, Instant>);

impl LogThrottle {
    /// Whether to log `text`: it is another error than those of the last minute.
    pub fn should_log(&mut self, text: &str) -> bool {
        self.0.retain(|_, when| when.elapsed() < REMINDER);
        if self.0.contains_key(text) {
            return false;
        }
        // Texts that are always others, with a number in them, say.
        if self.0.len() < MOST_ERRORS {
            self.0.insert(text.to_owned(), Instant::now());
            return true;
        }
        false
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
        assert!(!throttle.should_log("away") && !throttle.should_log("refused"), "in turns");
        let others = (0..1000).filter(|number| throttle.should_log(&number.to_string())).count();
        assert!(others < 20, "always another");
        tokio::time::advance(super::REMINDER).await;
        assert!(throttle.should_log("refused"), "a reminder");
    }
}
