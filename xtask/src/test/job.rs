//! One test, which runs in a process of its own.

use std::io::Read as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::fallback::Fallback;
use super::program::Program;
use crate::{privilege, step};

/// A test that is to run.
#[derive(Clone, Debug)]
pub struct Job {
    pub program: Arc<Program>,
    /// Its name in the program.
    pub name: String,
    pub fallback: Option<Fallback>,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub time: Duration,
    /// What it and the program have said.
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// By its own attribute.
    Ignored,
}

impl Job {
    /// The suite it counts for.
    pub fn suite(&self) -> String {
        let suite = &self.program.name;
        self.fallback.map_or_else(|| suite.clone(), |fallback| format!("{suite} ({})", fallback.name()))
    }

    /// Runs it as root, and waits for its end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn run(&self) -> Result<Outcome> {
        let mut command = Command::new(&self.program.path);
        command.current_dir(&self.program.folder).env("CARGO_MANIFEST_DIR", &self.program.folder);
        command.args(["--exact", &self.name, "--test-threads=1", "--nocapture"]);
        if let Some(fallback) = self.fallback {
            fallback.force(&mut command);
        }
        let mut command = privilege::as_root(command)?;
        let mut said = step::output(&mut command)?;
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot run {}", step::shown(&command)))?;
        drop(command);
        let mut output = Vec::new();
        said.read_to_end(&mut output).context("cannot read what a test says")?;
        let status = child.wait().context("cannot wait for a test")?;
        let output = String::from_utf8_lossy(&output).into_owned();
        let verdict = Verdict::of(status.success(), &output);
        Ok(Outcome { verdict, time: started.elapsed(), output })
    }
}

impl Verdict {
    /// That of a program with one test to run. One that ends without reporting a result has failed.
    fn of(is_success: bool, output: &str) -> Self {
        // Another process may just have begun a line of its own.
        let result = output.lines().rev().find_map(|line| line.split_once("test result: ok. "));
        match result.map(|(_, counts)| counts) {
            Some(counts) if is_success && counts.starts_with("1 passed; 0 failed") => Self::Passed,
            Some(counts) if is_success && counts.starts_with("0 passed; 0 failed; 1 ignored") => {
                Self::Ignored
            }
            _ => Self::Failed,
        }
    }

    /// As test programs say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Ignored => "ignored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn a_test_has_passed_only_if_its_program_says_so_and_ends_well() {
        let passed = "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(Verdict::of(true, passed), Verdict::Passed);
        assert_eq!(Verdict::of(false, passed), Verdict::Failed);
        let ignored = "test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out\n";
        assert_eq!(Verdict::of(true, ignored), Verdict::Ignored);
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out\n";
        for failed in
            [none, "", "thread 'a' has overflowed its stack\n", "test result: FAILED. 0 passed; 1 failed"]
        {
            assert_eq!(Verdict::of(true, failed), Verdict::Failed, "{failed}");
        }
    }
}
