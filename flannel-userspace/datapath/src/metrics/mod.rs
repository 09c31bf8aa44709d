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
    /// Whether each peer has series of its own. In a large network, every host then has some for every other host.
    pub per_peer: bool,
}

impl Domain for DatapathSource {
    fn register(&self, registry: &mut Registry, errors: &ScrapeErrors) {
        let attachments = AttachmentCollector::new(self.pin_dir.clone(), errors.source("programs"));
        registry.register_collector(Box::new(attachments));
        registry.register_collector(Box::new(CounterCollector::new(self.clone(), errors.source("datapath"))));
    }
}
