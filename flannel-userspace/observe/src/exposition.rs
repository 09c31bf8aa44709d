//! All metrics as text.

use std::fmt;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use super::Vitals;
use super::process::ProcessCollector;
use super::scrape::ScrapeErrors;
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

/// A part of the daemon with metrics of its own.
pub trait Domain {
    /// Registers them; their names begin with `flannel_`. Each source that is read at a scrape is taken from `errors`.
    fn register(&self, registry: &mut Registry, errors: &ScrapeErrors);
}

/// All metrics: those of each domain, and those of the process.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Registers `vitals`, the age of files, the process, and each domain.
    #[must_use]
    pub fn new(vitals: &Vitals, files: Files, domains: &[&dyn Domain]) -> Self {
        let errors = ScrapeErrors::default();
        let mut registry = Registry::default();
        let flannel = registry.sub_registry_with_prefix("flannel");
        flannel.register_collector(Box::new(StateCollector::new(vitals, files)));
        for domain in domains {
            domain.register(flannel, &errors);
        }
        registry
            .sub_registry_with_prefix("process")
            .register_collector(Box::new(ProcessCollector::new(&errors)));
        // After what it counts, so that it includes this scrape.
        registry.sub_registry_with_prefix("flannel").register(
            "scrape_errors",
            "Scrapes in which a source could not be read and its metrics are missing; the datapath cannot be read \
             before it is in place",
            errors.counters(),
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
