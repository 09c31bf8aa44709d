//! What the rounds brought, and what it comes to.

use std::collections::BTreeMap;

use super::link::Link;
use super::measure::Measure;

/// The values of all rounds, in their order.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: BTreeMap<(Link, Measure), BTreeMap<&'static str, Vec<f64>>>,
}

/// The middle of some values, and the half of them around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// A quarter of the values is lower.
    pub low: f64,
    /// A quarter of the values is higher.
    pub high: f64,
}

impl Samples {
    /// Adds the value of a round.
    pub fn add(&mut self, link: Link, path: &'static str, measure: Measure, value: f64) {
        self.values.entry((link, measure)).or_default().entry(path).or_default().push(value);
    }

    /// The values of a figure; empty if it was not measured.
    #[must_use]
    pub fn values(&self, link: Link, path: &str, measure: Measure) -> &[f64] {
        self.values.get(&(link, measure)).and_then(|paths| paths.get(path)).map_or(&[], Vec::as_slice)
    }

    /// A figure.
    #[must_use]
    pub fn summary(&self, link: Link, path: &str, measure: Measure) -> Option<Summary> {
        Summary::of(self.values(link, path, measure).to_vec())
    }

    /// A figure as a multiple of another path's. Each value is compared with that of the same round, so that what
    /// slows the machine down for a while slows both.
    #[must_use]
    pub fn ratio(&self, link: Link, path: &str, measure: Measure, reference: &str) -> Option<Summary> {
        let pairs = self.values(link, path, measure).iter().zip(self.values(link, reference, measure));
        Summary::of(pairs.map(|(value, of)| value / of).filter(|ratio| ratio.is_finite()).collect())
    }
}

impl Summary {
    /// That of some values; nothing of none.
    pub(in crate::bench) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * values.len().checked_sub(1)? as f64;
            let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Self { median: at(0.5)?, low: at(0.25)?, high: at(0.75)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, Measure, Samples, Summary};

    #[test]
    fn quartiles_lie_between_values() {
        let of = |values: &[f64]| Summary::of(values.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some(Summary { median: 7.0, low: 7.0, high: 7.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Summary { median: 2.5, low: 1.75, high: 3.25 }));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (ours, reference) in [(2.0, 1.0), (20.0, 10.0), (6.0, 3.0)] {
            samples.add(Link::Veth, "vxlan", Measure::PacketRate, ours);
            samples.add(Link::Veth, "direct", Measure::PacketRate, reference);
        }
        let ratio = samples.ratio(Link::Veth, "vxlan", Measure::PacketRate, "direct");
        assert_eq!(ratio, Some(Summary { median: 2.0, low: 2.0, high: 2.0 }));
        assert_eq!(samples.ratio(Link::Wire, "vxlan", Measure::PacketRate, "direct"), None);
        assert_eq!(samples.ratio(Link::Veth, "vxlan", Measure::Loss, "direct"), None);
    }
}
