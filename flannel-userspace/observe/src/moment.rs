//! A point in time that may not have come.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::series::Labels;

/// A gauge of seconds since 1970 that is absent while there is no such point in time: zero would read as 1970.
#[derive(Clone, Debug, Default)]
pub struct Moment(Family<Labels<0>, Gauge<f64, AtomicU64>>);

impl Moment {
    /// Sets the point in time, or says that there is none.
    pub fn set(&self, time: Option<SystemTime>) {
        match time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            Some(since) => {
                self.0.get_or_create(&[]).set(since.as_secs_f64());
            }
            None => self.0.clear(),
        }
    }
}

impl EncodeMetric for Moment {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
