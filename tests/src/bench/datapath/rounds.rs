//! The rounds: every path is measured in each, one after the other, so that all see the machine alike.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lab::{Lab, Way};
use super::link::Link;
use super::measure::Step;
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
    ways.iter().try_for_each(|way| link.apply(&way.hosts))?;
    for round in 0..extent.rounds {
        eprintln!("link {}: round {} of {} …", link.name(), round + 1, extent.rounds);
        for step in Step::of(link) {
            // Another path begins each time: none is always behind the same one.
            for index in 0..ways.len() {
                let way = ways[(index + round) % ways.len()];
                let name = way.path.name;
                let values = step.take(way, extent.time);
                let values =
                    values.with_context(|| format!("path {name}, {step:?}, link {}", link.name()))?;
                for (measure, value) in values {
                    samples.add(link, name, measure, value);
                }
            }
        }
    }
    lab.check_running()
}
