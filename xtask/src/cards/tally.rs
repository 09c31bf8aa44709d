//! How many cases passed, as the guests say.

use std::fmt;
use std::ops::AddAssign;

/// What the near guest begins the line of a case with.
const PASSED: &str = "PASS ";
const FAILED: &str = "FAIL ";

/// Numbers of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    /// Of the lines that a guest printed.
    pub fn of(output: &str) -> Self {
        let count = |beginning| output.lines().filter(|line| line.starts_with(beginning)).count();
        Self { passed: count(PASSED), failed: count(FAILED) }
    }

    /// Something passed and nothing failed.
    pub const fn is_good(self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn lines_of_cases_are_counted() {
        let mut tally = Tally::of("PASS a: 3 of 3\nwhat FAIL said\nFAIL b: PASS was wanted\n");
        assert_eq!(tally.to_string(), "1 passed, 1 failed");
        assert!(!tally.is_good() && !Tally::default().is_good());
        tally += Tally { passed: 2, failed: 0 };
        assert_eq!(tally, Tally { passed: 3, failed: 1 });
    }
}
