//! Sums up what many test programs say.

use std::fmt::{self, Display, Formatter};

/// The tests so far.
#[derive(Default)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    /// The names of those that failed.
    failures: Vec<String>,
    /// The program whose tests run, by its name.
    program: String,
    /// Programs with how many seconds their tests took.
    times: Vec<(String, f32)>,
}

impl Summary {
    /// Takes in one line of output. What tests print themselves never looks like this: it is captured.
    pub fn read(&mut self, line: &str) {
        if let Some((_, counts)) = line.split_once("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.times.extend(seconds(counts).map(|seconds| (self.program.clone(), seconds)));
        } else if let Some(program) = program(line) {
            program.clone_into(&mut self.program);
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
        self.times.extend_from_slice(&other.times);
    }

    /// The programs that took longest, a line each, longest first.
    pub fn longest(&self, number: usize) -> String {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        times.iter().take(number).map(|(program, seconds)| format!("{seconds:7.1} s {program}\n")).collect()
    }
}

/// The program that cargo says it runs: "Running tests/network/main.rs (target/debug/deps/network-c759a31b5602bd96)".
fn program(line: &str) -> Option<&str> {
    let (_, path) = line.split_once("Running")?.1.split_once('(')?;
    let name = path.trim_end().strip_suffix(')')?.rsplit('/').next()?;
    Some(name.rsplit_once('-').map_or(name, |(name, _)| name))
}

/// The number in "…; finished in 12.34s".
fn seconds(counts: &str) -> Option<f32> {
    counts.split_once("finished in ")?.1.trim_end().strip_suffix('s')?.parse().ok()
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
    fn programs_are_shown_by_how_long_their_tests_took() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/flannel_common-4c0e)\n\
            test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n\
            \u{1b}[1m     Running\u{1b}[0m tests/network/main.rs (target/debug/deps/network-c759a31b5602bd96)\n\
            test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 41.00s\n";
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read(line));
        assert_eq!(summary.longest(1), "   41.0 s network\n");
        assert_eq!(summary.longest(9), "   41.0 s network\n    0.0 s flannel_common\n");
    }

    #[test]
    fn no_test_counts_nothing() {
        let output = "test result: ok. 0 passed; 0 failed; 9 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(summary(output), "0 passed, 0 failed");
        assert_eq!(summary("a line that says 5 passed; 6 failed\n"), "0 passed, 0 failed");
    }
}
