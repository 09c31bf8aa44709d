//! A line for each case.

use std::time::Instant;

use anyhow::Result;

use super::pair::Pair;

/// How the cases went.
#[derive(Debug)]
pub(super) struct Report {
    /// What names of cases must contain to be tried.
    wanted: Option<String>,
    failed: usize,
}

impl Report {
    pub(super) const fn new(wanted: Option<String>) -> Self {
        Self { wanted, failed: 0 }
    }

    /// Whether no case failed.
    pub(super) const fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Tries a case, which says what it measured.
    pub(super) fn case(
        &mut self,
        pair: &mut Pair,
        name: &str,
        try_it: impl FnOnce(&mut Pair) -> Result<String>,
    ) {
        if self.wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            return;
        }
        let begin = Instant::now();
        let outcome = try_it(pair);
        let seconds = begin.elapsed().as_secs();
        match outcome {
            Ok(figures) => println!("PASS {name} ({seconds} s): {figures}"),
            Err(error) => {
                self.failed += 1;
                println!("FAIL {name} ({seconds} s): {error:#}");
            }
        }
    }
}
