//! The measurements of the demonstration.

use std::time::Duration;

use anyhow::Result;

use crate::traffic::{Carriers, Endpoint, Ends, Latency, latency, throughput};

/// What one path is capable of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement {
    /// Bits per second over one connection.
    pub(super) one_stream: f64,
    /// Bits per second over four.
    pub(super) four_streams: f64,
    /// One byte there and back.
    pub(super) latency: Latency,
}

/// The path between pods and the bare link, one measured right after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) direct: Measurement,
    pub(super) overlay: Measurement,
}

/// Measures three times `time`.
pub(super) fn measure(from: &Endpoint, to: &Endpoint, time: Duration) -> Result<Measurement> {
    let between = Carriers::new(&[])?;
    let rate = |streams| throughput(from, to, streams, time, &between).map(|through| through.rate());
    Ok(Measurement {
        one_stream: rate(1)?,
        four_streams: rate(4)?,
        latency: latency(from, to, time, Ends::Together)?,
    })
}
