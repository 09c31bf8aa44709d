//! What is read at each scrape, and may be missing.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::series::Labels;

/// Counts failed reads.
#[derive(Clone, Debug, Default)]
pub struct ScrapeErrors(Family<Labels<1>, Counter>);

impl ScrapeErrors {
    pub(super) fn counters(&self) -> Family<Labels<1>, Counter> {
        self.0.clone()
    }

    /// What is read at each scrape under this name.
    #[must_use]
    pub fn source(&self, name: &'static str) -> Source {
        let errors = self.0.get_or_create_owned(&[("source", name)]);
        Source { name, errors }
    }
}

/// Something that is read at each scrape.
#[derive(Clone, Debug)]
pub struct Source {
    name: &'static str,
    errors: Counter,
}

impl Source {
    /// The value read. A failed read is counted, and logged with the reason.
    pub fn read<T, E: std::error::Error>(&self, read: Result<T, E>) -> Option<T> {
        read.inspect_err(|error| {
            tracing::debug!(%error, source = self.name, "some metrics cannot be read");
            self.errors.inc();
        })
        .ok()
    }
}
