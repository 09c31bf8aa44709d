//! The rounds: every path is measured in each, one after the other, so that all see the machine alike.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lab::{Lab, Way};
use super::link::Link;
use super::measure::{Measure, Step};
use super::samples::Samples;

/// How much is measured on a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) rounds: usize,
    /// Of each step.
    pub(super) time: Duration,
}

/// Measures the paths of a link.
pub(super) fn measure(lab: &mut Lab, link: Link, extent: Extent, samples: &mut Samples) -> Result<()> {
    let ways: Vec<&Way> = lab.ways.iter().filter(|way| way.path.links.contains(&link)).collect();
    ways.iter().try_for_each(|way| link.apply(&way.hosts, [&way.from, &way.to]))?;
    for round in 0..extent.rounds {
        eprintln!("link {}: round {} of {} …", link.name(), round + 1, extent.rounds);
        for step in Step::of(link) {
            // Another path begins each time: none is always behind the same one.
            for index in 0..ways.len() {
                let way = ways[(index + round) % ways.len()];
                for (measure, value) in take(*step, way, link, extent.time)? {
                    samples.add(link, way.path.name, measure, value);
                }
            }
        }
    }
    lab.check_running()
}

/// A busy machine can starve a connection until it times out: that is reported, and tried once more.
fn take(step: Step, way: &Way, link: Link, time: Duration) -> Result<Vec<(Measure, f64)>> {
    let what = || format!("path {}, {step:?}, link {}", way.path.name, link.name());
    step.take(way, time).or_else(|error| {
        eprintln!("{}: {error:#}; once more …", what());
        step.take(way, time).with_context(what)
    })
}
