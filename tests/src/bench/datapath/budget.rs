//! The short form: ratios that must not get worse.

use std::fmt::{self, Display, Formatter};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::goals::Bound;
use super::link::Link;
use super::measure::Measure;
use super::path::{PATHS, Path};
use super::samples::Samples;
use super::{Options, measure};

/// The limits.
const FILE: &str = include_str!("../../../../docs/benchmarks/budget.toml");
const ROUNDS: u16 = 5;
/// Milliseconds of each measurement.
const TIME: u64 = 400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    ratio: Vec<Limit>,
}

/// A limit of a ratio between two paths.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Limit {
    path: String,
    against: String,
    measure: String,
    at_least: Option<f64>,
    at_most: Option<f64>,
}

/// Measures the short form, and once more if a ratio exceeds its budget.
///
/// # Errors
/// A ratio exceeds its budget both times.
pub fn check() -> Result<()> {
    let budget: Budget = toml::from_str(FILE).context("budget.toml is not understood")?;
    let mut limits = budget.ratio;
    ensure!(!limits.is_empty(), "budget.toml sets no limit");
    for attempt in ["first", "second"] {
        let samples = samples()?;
        let outcomes = limits.into_iter().map(|limit| Ok((limit.outcome(&samples)?, limit)));
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        for (outcome, limit) in &outcomes {
            println!("{limit}: {outcome:.2}");
        }
        limits = outcomes
            .into_iter()
            .filter(|(outcome, limit)| !limit.allows(*outcome))
            .map(|(_, limit)| limit)
            .collect();
        if limits.is_empty() {
            return Ok(());
        }
        eprintln!("{attempt} attempt: {} ratios exceed their budgets", limits.len());
    }
    let exceeded: Vec<String> = limits.iter().map(ToString::to_string).collect();
    bail!("exceeded twice, see the ratios above:\n{}", exceeded.join("\n"))
}

fn samples() -> Result<Samples> {
    let options = Options {
        rounds: ROUNDS,
        time: TIME,
        links: vec![Link::Veth],
        paths: Vec::new(),
        quick: true,
        write: None,
    };
    let paths: Vec<Path> = PATHS.iter().filter(|path| path.quick).copied().collect();
    Ok(measure(&options, &paths)?.samples)
}

impl Limit {
    fn outcome(&self, samples: &Samples) -> Result<f64> {
        let measure = Measure::ALL.iter().find(|measure| measure.name() == self.measure);
        let measure = measure.with_context(|| format!("budget.toml: nothing is called {}", self.measure))?;
        let ratio = samples.ratio(Link::Veth, &self.path, *measure, &self.against);
        Ok(ratio.with_context(|| format!("budget.toml: {self} is not measured"))?.median)
    }

    fn allows(&self, ratio: f64) -> bool {
        let bounds = [self.at_least.map(Bound::AtLeast), self.at_most.map(Bound::AtMost)];
        bounds.into_iter().flatten().all(|bound| bound.missed_by(ratio).is_none())
    }
}

impl Display for Limit {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { path, against, measure, at_least, at_most } = self;
        write!(formatter, "{path}, {measure}, as a multiple of {against}")?;
        at_least.iter().try_for_each(|bound| write!(formatter, ", at least {bound}"))?;
        at_most.iter().try_for_each(|bound| write!(formatter, ", at most {bound}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::Measure;
    use super::super::path::PATHS;
    use super::{Budget, FILE};

    #[test]
    fn limits_are_of_what_the_short_form_measures() {
        let budget: Budget = toml::from_str(FILE).unwrap();
        for limit in &budget.ratio {
            let is_quick = |name: &str| PATHS.iter().any(|path| path.name == name && path.quick);
            assert!(is_quick(&limit.path) && is_quick(&limit.against), "{limit}");
            assert!(Measure::ALL.iter().any(|measure| measure.name() == limit.measure), "{limit}");
            assert!(limit.at_least.is_some() || limit.at_most.is_some(), "{limit} limits nothing");
        }
    }

    #[test]
    fn limits_are_kept_on_both_sides() {
        let limit: super::Limit =
            toml::from_str("path='a'\nagainst='b'\nmeasure='c'\nat-least=0.5\nat-most=2.0").unwrap();
        assert!(limit.allows(0.5) && limit.allows(2.0));
        assert!(!limit.allows(0.4) && !limit.allows(2.1) && !limit.allows(f64::NAN));
    }
}
