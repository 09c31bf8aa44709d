//! Sums up what many tests have said.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// The tests so far.
#[derive(Default)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    /// The names of those that failed.
    failures: Vec<String>,
    /// How long single tests took.
    tests: Vec<(String, Duration)>,
    /// How long the tests of each suite took, added up.
    suites: BTreeMap<String, Duration>,
}

impl Summary {
    /// Takes in one line of the output of a program with tests. What tests print themselves never looks like this: it is
    /// captured.
    pub fn read(&mut self, line: &str) {
        if let Some((_, counts)) = line.split_once("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(failure) {
            self.failures.push(name.to_owned());
        }
    }

    /// Counts one test.
    pub fn count(&mut self, name: &str, is_passed: bool) {
        if is_passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Notes how long a test took.
    pub fn time(&mut self, suite: &str, test: &str, time: Duration) {
        self.tests.push((format!("{suite} {test}"), time));
        self.time_suite(suite, time);
    }

    /// Notes how long tests took of which nobody knows the single times.
    pub fn time_suite(&mut self, suite: &str, time: Duration) {
        *self.suites.entry(suite.to_owned()).or_default() += time;
    }

    /// Adds what another one has summed up.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend_from_slice(&other.failures);
        self.tests.extend_from_slice(&other.tests);
        for (suite, time) in &other.suites {
            self.time_suite(suite, *time);
        }
    }

    /// The suites with the time that their tests took, a line each, longest first.
    pub fn suites(&self) -> String {
        longest(self.suites.iter(), usize::MAX)
    }

    /// The tests that took longest, a line each, longest first.
    pub fn slowest(&self, number: usize) -> String {
        longest(self.tests.iter().map(|(test, time)| (test, time)), number)
    }
}

fn longest<'a>(times: impl Iterator<Item = (&'a String, &'a Duration)>, number: usize) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
    times.iter().take(number).map(|(name, time)| format!("{:7.1} s {name}\n", time.as_secs_f32())).collect()
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
    use std::time::Duration;

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
    fn what_took_longest_comes_first() {
        let mut summary = Summary::default();
        summary.time("cli", "a", Duration::from_millis(1500));
        summary.time("network", "b", Duration::from_secs(1));
        let mut guests = Summary::default();
        guests.time("network", "c", Duration::from_secs(2));
        guests.time_suite("guest", Duration::from_secs(40));
        summary.add(&guests);
        assert_eq!(summary.slowest(2), "    2.0 s network c\n    1.5 s cli a\n");
        assert_eq!(summary.suites(), "   40.0 s guest\n    3.0 s network\n    1.5 s cli\n");
    }

    #[test]
    fn no_test_counts_nothing() {
        let output = "test result: ok. 0 passed; 0 failed; 9 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(summary(output), "0 passed, 0 failed");
        assert_eq!(summary("a line that says 5 passed; 6 failed\n"), "0 passed, 0 failed");
    }
}
