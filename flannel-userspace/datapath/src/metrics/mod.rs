//! What the programs count, and whether they are attached, read at each scrape.

mod attachments;
mod counters;

use std::path::PathBuf;

use flannel_observe::{Domain, ScrapeErrors};
use prometheus_client::registry::Registry;

use attachments::AttachmentCollector;
use counters::CounterCollector;

/// Where the figures of the datapath are read.
#[derive(Clone, Debug)]
pub struct DatapathSource {
    /// Where the maps are pinned.
    pub pin_dir: PathBuf,
    /// Whether each peer has series of its own.
    pub per_peer: PerPeer,
}

/// Whether each peer has series of its own. Every host then has some for every other host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerPeer {
    /// Each has.
    Always,
    /// None has.
    Never,
    /// Each has while there are [`PerPeer::FEW`] at most.
    WhileFew,
}

impl PerPeer {
    /// With so many peers, all hosts together have 7 × 100 × 100 series at most.
    pub const FEW: usize = 100;

    /// Whether each of `peers` has.
    const fn is_on(self, peers: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::WhileFew => peers <= Self::FEW,
        }
    }
}

impl Domain for DatapathSource {
    fn register(&self, registry: &mut Registry, errors: &ScrapeErrors) {
        let attachments = AttachmentCollector::new(self.pin_dir.clone(), errors.source("programs"));
        registry.register_collector(Box::new(attachments));
        registry.register_collector(Box::new(CounterCollector::new(self.clone(), errors.source("datapath"))));
    }
}
