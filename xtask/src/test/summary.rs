//! Sums up what many test programs say.

use std::fmt::{self, Display, Formatter};

/// The tests so far.
#[derive(Default)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    /// The names of those that failed.
    failures: Vec<String>,
}

impl Summary {
    /// Takes in one line of output. What tests print themselves never looks like this: it is captured.
    pub fn read(&mut self, line: &str) {
        if let Some((_, counts)) = line.split_once("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(failure) {
            self.failures.push(name.to_owned());
        }
    }

    /// Counts one test that is none of a test program.
    pub fn count(&mut self, name: &str, is_passed: bool) {
        if is_passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Adds what another one has summed up.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend_from_slice(&other.failures);
    }
}

/// The number before a word, in "ok. 12 passed; 0 failed; …".
fn count(counts: &str, word: &str) -> u64 {
    let mut words = counts.split([' ', ';']).rev().skip_while(|found| *found != word).skip(1);
    words.next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The name in "name ... FAILED", which is coloured on a terminal.
fn failure(line: &str) -> Option<&str> {
    let (name, outcome) = line.split_once(" ... ")?;
    outcome.contains("FAILED").then_some(name)
}

impl Display for Summary {
    /// Ends with the counts, alone on a line.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for name in &self.failures {
            writeln!(formatter, "FAILED {name}")?;
        }
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    fn summary(output: &str) -> String {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read(line));
        summary.to_string()
    }

    #[test]
    fn several_programs_are_added_up() {
        let output = "running 12 tests\n\
            test a ... ok\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s\n\
            test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s\n";
        assert_eq!(summary(output), "42 passed, 0 failed");
    }

    #[test]
    fn failures_are_counted_and_named() {
        let output = "test packet::vxlan_goes_out ... FAILED\n\
            test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n";
        assert_eq!(summary(output), "FAILED packet::vxlan_goes_out\n4 passed, 1 failed");
    }

    #[test]
    fn colours_do_not_matter() {
        let output = "test a ... \u{1b}[31mFAILED\u{1b}[m\n\
            test result: \u{1b}[31mFAILED\u{1b}[m. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(summary(output), "FAILED a\n0 passed, 1 failed");
    }

    #[test]
    fn no_test_counts_nothing() {
        let output = "test result: ok. 0 passed; 0 failed; 9 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(summary(output), "0 passed, 0 failed");
        assert_eq!(summary("a line that says 5 passed; 6 failed\n"), "0 passed, 0 failed");
    }
}
