//! The control planes of a whole network in one process, under a clock that does not wait.
//!
//! Hosts run what `flanneld` runs above its kernel and its registry; both are played. Things happen to them by chance:
//! addresses change, devices vanish, leases are written, deleted and spoiled, the registry goes away, forgets its history or
//! is restored, the kernel refuses, daemons are killed wherever they are. After a quiet time everything must be as the
//! registry asks for. One seed is one run, always the same. What is right is decided here; nothing of the product lives
//! here.

mod cost;
mod host;
mod kernel;
mod registry;
mod store;
mod storm;
mod world;

use anyhow::{Context as _, Result, anyhow};
use flannel_control::chance;
use tokio::runtime::{Builder, Runtime};
use world::World;

/// How many of the last events are reported when something is wrong.
const TOLD: usize = 40;

/// Runs the network of that seed, with this number of events.
///
/// # Errors
/// Something does not hold; the error has the last events.
pub fn run(seed: u64, steps: usize) -> Result<()> {
    runtime()?.block_on(async {
        let mut world = World::new(seed);
        let outcome = world.run(steps).await;
        outcome.map_err(|error| {
            let happened: Vec<String> = world.log().take(TOLD).cloned().collect();
            anyhow!(
                "seed {seed}, {steps} steps: {error:#}\n    last, the latest first:\n    {}",
                happened.join("\n    ")
            )
        })
    })
}

/// Measures what events cost a host with many peers.
///
/// # Errors
/// They cost more because something fails.
pub fn cost() -> Result<()> {
    chance::seed(1);
    runtime()?.block_on(cost::check())
}

/// Has the registry go away for all hosts at once, and come back.
///
/// # Errors
/// They list the leases more often than once a minute, or together.
pub fn storm() -> Result<()> {
    chance::seed(1);
    runtime()?.block_on(storm::check())
}

/// One thread, and a clock that does not wait.
fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.context("cannot start a runtime")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{cost, run, storm};

    /// Seeds that failed once; each is replayed by every run.
    const FAILED: &str = include_str!("../seeds.txt");

    /// So many seeds in a row; `cargo xtask simulate` runs more.
    const SEEDS: u64 = 200;

    /// On both processors, for no seed knows of another.
    #[rstest]
    #[case::even(0)]
    #[case::odd(1)]
    fn everything_is_as_the_registry_asks_for(#[case] first: u64) {
        for seed in (first..SEEDS).step_by(2) {
            run(seed, 1000).unwrap();
        }
    }

    #[test]
    fn events_cost_the_same_while_something_fails() {
        cost().unwrap();
    }

    #[test]
    fn a_registry_that_comes_back_is_not_asked_for_everything_by_everybody() {
        storm().unwrap();
    }

    #[test]
    fn seeds_that_failed_once() {
        for line in FAILED.lines().filter(|line| !line.starts_with('#')) {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap());
            let (seed, steps) = (numbers.next().unwrap(), numbers.next().unwrap());
            run(seed, usize::try_from(steps).unwrap()).unwrap();
        }
    }
}
