//! What the datapath should reach.

use super::link::Link;
use super::measure::Measure;
use super::path::{DIRECT, KERNEL_VXLAN, KERNEL_VXLAN_MASQUERADE, ROUTES, TUN_PROXY};
use super::samples::Samples;

/// A figure that should be reached, or not be exceeded.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Name of the path.
    pub path: &'static str,
    /// Where.
    pub link: Link,
    /// Which figure.
    pub measure: Measure,
    /// How much.
    pub bound: Bound,
    /// As a multiple of this path's figure; otherwise as it is.
    pub against: Option<&'static str>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Measure::{CpuPerGigabyte, CpuPerPacket, FourStreams, LatencyApart, OneStream, PacketRate};

const VXLAN_FAST: &str = "vxlan, bypass";
const UDP_FAST: &str = "udp, bypass";

/// All of them. Paths that are not measured have none.
pub const GOALS: &[Goal] = &[
    of("vxlan", CpuPerPacket, AtMost(0.75), KERNEL_VXLAN),
    of("vxlan", PacketRate, AtLeast(1.4), KERNEL_VXLAN),
    of("vxlan", FourStreams, AtLeast(1.0), KERNEL_VXLAN),
    of("vxlan", CpuPerGigabyte, AtMost(0.70), KERNEL_VXLAN),
    // What the guard and the counters cost.
    of("vxlan", CpuPerPacket, AtMost(1.03), "vxlan, no guard"),
    of("vxlan", CpuPerPacket, AtMost(1.03), "vxlan, no counters"),
    of(VXLAN_FAST, CpuPerPacket, AtMost(1.03), "vxlan, bypass, no counters"),
    of("udp", CpuPerPacket, AtMost(0.75), KERNEL_VXLAN),
    of("udp", PacketRate, AtLeast(1.4), KERNEL_VXLAN),
    of("udp", FourStreams, AtLeast(1.0), KERNEL_VXLAN),
    of("udp", CpuPerGigabyte, AtMost(0.70), KERNEL_VXLAN),
    of("udp", OneStream, AtLeast(20.0), TUN_PROXY),
    of("udp", FourStreams, AtLeast(20.0), TUN_PROXY),
    of(VXLAN_FAST, CpuPerPacket, AtMost(0.50), KERNEL_VXLAN),
    of(VXLAN_FAST, CpuPerPacket, AtMost(0.75), ROUTES),
    of(VXLAN_FAST, PacketRate, AtLeast(2.2), KERNEL_VXLAN),
    of(VXLAN_FAST, FourStreams, AtLeast(1.5), KERNEL_VXLAN),
    of(VXLAN_FAST, FourStreams, AtLeast(1.0), ROUTES),
    of(VXLAN_FAST, CpuPerGigabyte, AtMost(0.70), KERNEL_VXLAN),
    of(VXLAN_FAST, LatencyApart, AtMost(1.03), DIRECT),
    of(UDP_FAST, CpuPerPacket, AtMost(0.50), KERNEL_VXLAN),
    of(UDP_FAST, CpuPerPacket, AtMost(0.75), ROUTES),
    of(UDP_FAST, PacketRate, AtLeast(2.2), KERNEL_VXLAN),
    of(UDP_FAST, FourStreams, AtLeast(1.5), KERNEL_VXLAN),
    of(UDP_FAST, FourStreams, AtLeast(1.0), ROUTES),
    of(UDP_FAST, CpuPerGigabyte, AtMost(0.70), KERNEL_VXLAN),
    of(UDP_FAST, LatencyApart, AtMost(1.03), DIRECT),
    of("vxlan, masquerade", CpuPerPacket, AtMost(0.75), KERNEL_VXLAN_MASQUERADE),
    of("vxlan, bypass, masquerade", CpuPerPacket, AtMost(0.50), KERNEL_VXLAN_MASQUERADE),
    of("vxlan, bypass, masquerade", CpuPerPacket, AtMost(0.75), "host-gw, masquerade"),
    of("vxlan, bypass, masquerade", PacketRate, AtLeast(2.2), KERNEL_VXLAN_MASQUERADE),
    of("udp, bypass, masquerade", CpuPerPacket, AtMost(0.50), KERNEL_VXLAN_MASQUERADE),
    of("udp, bypass, masquerade", PacketRate, AtLeast(2.2), KERNEL_VXLAN_MASQUERADE),
    at_100_mbit("udp", 92.0e6),
    at_100_mbit("vxlan", 90.6e6),
    at_100_mbit(ROUTES, 94.0e6),
    at_100_mbit("vxlan, DirectRouting", 94.0e6),
    at_100_mbit("udp, DirectRouting", 94.0e6),
];

const fn of(path: &'static str, measure: Measure, bound: Bound, against: &'static str) -> Goal {
    Goal { path, link: Link::Veth, measure, bound, against: Some(against) }
}

const fn at_100_mbit(path: &'static str, rate: f64) -> Goal {
    Goal { path, link: Link::Slow, measure: OneStream, bound: AtLeast(rate), against: None }
}

impl Goal {
    /// What was reached; nothing if it was not measured.
    #[must_use]
    pub fn reached(&self, samples: &Samples) -> Option<f64> {
        let Self { path, link, measure, .. } = *self;
        let summary = match self.against {
            Some(reference) => samples.ratio(link, path, measure, reference),
            None => samples.summary(link, path, measure),
        };
        summary.map(|summary| summary.median)
    }
}

impl Bound {
    /// The number.
    #[must_use]
    pub const fn value(self) -> f64 {
        match self {
            AtLeast(value) | AtMost(value) => value,
        }
    }

    /// By what share of the bound it is missed.
    #[must_use]
    pub fn missed_by(self, reached: f64) -> Option<f64> {
        let missing = match self {
            AtLeast(bound) => 1.0 - reached / bound,
            AtMost(bound) => reached / bound - 1.0,
        };
        // What is not a number meets no bound.
        (missing > 0.0 || missing.is_nan()).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, GOALS};

    #[test]
    fn bounds_hold_on_their_side() {
        assert_eq!(Bound::AtLeast(2.0).missed_by(2.0), None);
        assert_eq!(Bound::AtLeast(2.0).missed_by(1.5), Some(0.25));
        assert_eq!(Bound::AtMost(2.0).missed_by(1.5), None);
        assert_eq!(Bound::AtMost(2.0).missed_by(3.0), Some(0.5));
        assert!(Bound::AtMost(2.0).missed_by(f64::NAN).is_some());
    }

    #[test]
    fn goals_are_of_paths_measured_on_their_link() {
        for goal in GOALS.iter().filter(|goal| !goal.path.ends_with("bypass")) {
            let measured = |name: &str| {
                super::super::path::PATHS
                    .iter()
                    .any(|path| path.name == name && path.links.contains(&goal.link))
            };
            assert!(measured(goal.path) && goal.against.is_none_or(measured), "{goal:?}");
        }
    }
}
