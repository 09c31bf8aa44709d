//! Which configuration is served.

use flannel_observe::{Domain, ScrapeErrors};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of the network's configuration. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct ConfigMetrics {
    served: Family<[(&'static str, String); 1], Gauge>,
    stale: Gauge,
}

impl ConfigMetrics {
    /// The configuration with that hash is served.
    pub fn serving(&self, hash: &str) {
        self.served.clear();
        self.served.get_or_create(&[("hash", hash.to_owned())]).set(1);
    }

    /// Whether the registry holds another one, which is not served.
    pub fn set_stale(&self, is_stale: bool) {
        self.stale.set(is_stale.into());
    }
}

impl Domain for ConfigMetrics {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        registry.register(
            "config_info",
            "Which network configuration is served, by the beginning of the SHA-256 of its text; the same on every host",
            self.served.clone(),
        );
        registry.register(
            "config_stale",
            "1 while the network configuration in the registry is another than the one that is served, because it takes \
             a restart or cannot be served; /readyz gives the reason",
            self.stale.clone(),
        );
    }
}
