//! All metrics as text.

use std::fmt;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Vitals;
use super::datapath::{DatapathCollector, DatapathSource};
use super::process::ProcessCollector;
use super::programs::ProgramCollector;
use super::state::{Files, StateCollector};

/// How the text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4: what every scraper reads.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that a request with this `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Counts what could not be read when it was asked for.
#[derive(Clone, Debug)]
pub(super) struct ScrapeErrors(Family<[(&'static str, &'static str); 1], Counter>);

impl ScrapeErrors {
    fn new(sources: &[&'static str]) -> Self {
        let errors = Self(Family::default());
        for source in sources {
            errors.0.get_or_create(&[("source", source)]).inc_by(0);
        }
        errors
    }

    /// The value read, or nothing; then it is counted and told why.
    pub(super) fn read<T, E: std::error::Error>(
        &self,
        source: &'static str,
        read: Result<T, E>,
    ) -> Option<T> {
        read.inspect_err(|error| {
            tracing::debug!(%error, source, "some metrics cannot be read");
            self.0.get_or_create(&[("source", source)]).inc();
        })
        .ok()
    }
}

/// All metrics: those of the daemon, and those that are read when they are asked for.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Shows `vitals`, what the programs below a pin directory count, where there are programs, and the age of files.
    #[must_use]
    pub fn new(vitals: &Vitals, datapath: Option<DatapathSource>, files: Files) -> Self {
        let errors =
            ScrapeErrors::new(&[DatapathCollector::NAME, ProgramCollector::NAME, ProcessCollector::NAME]);
        let mut registry = Registry::default();
        let flannel = registry.sub_registry_with_prefix("flannel");
        vitals.metrics.register(flannel);
        flannel.register_collector(Box::new(StateCollector::new(vitals, files)));
        if let Some(datapath) = datapath {
            let programs = ProgramCollector::new(datapath.pin_dir.clone(), errors.clone());
            flannel.register_collector(Box::new(programs));
            flannel.register_collector(Box::new(DatapathCollector::new(datapath, errors.clone())));
        }
        registry
            .sub_registry_with_prefix("process")
            .register_collector(Box::new(ProcessCollector::new(errors.clone())));
        // Behind what it counts, so that it tells of this very scrape.
        registry.sub_registry_with_prefix("flannel").register(
            "scrape_errors",
            "Scrapes in which a source could not be read, so that its metrics are missing; the datapath cannot be \
             before it is in place",
            errors.0,
        );
        Self { registry }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut text, &self.registry)?,
        }
        Ok(text)
    }
}
