//! How many lines a second are logged.

use std::time::{Duration, Instant};

/// As many as a person can read.
const LINES: u32 = 20;
/// Within this time.
const SPAN: Duration = Duration::from_secs(1);

/// Lets some lines through in each second, and counts the others.
pub(super) struct Limit {
    began: Instant,
    told: u32,
    left_out: u64,
}

impl Limit {
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, told: 0, left_out: 0 }
    }

    /// Lets time pass. When a second is over: how many lines were left out in it.
    pub(super) fn pass(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.began) < SPAN {
            return 0;
        }
        std::mem::replace(self, Self::new(now)).left_out
    }

    /// Whether one more line may be logged.
    pub(super) const fn admits(&mut self) -> bool {
        if self.told < LINES {
            self.told += 1;
            return true;
        }
        self.left_out += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{LINES, Limit};

    #[test]
    fn what_is_too_much_is_left_out_and_told_once() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let admitted = (0..LINES + 7).filter(|_| limit.admits()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(limit.pass(start + Duration::from_millis(999)), 0, "the second is not over");
        assert!(!limit.admits());
        let later = start + Duration::from_secs(1);
        assert_eq!(limit.pass(later), 8);
        assert!(limit.admits(), "another second");
        assert_eq!(limit.pass(later + Duration::from_secs(5)), 0, "none was left out in it");
    }
}
