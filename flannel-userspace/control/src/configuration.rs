//! The network's configuration while the host is served: where it stands is followed, and what it says takes effect as
//! far as it can.
//!
//! A configuration is served whole or not at all. Another one that only says what can take effect at once goes to
//! everybody who depends on it. Anything else leaves the one of before in force, and is told: what takes a restart of the
//! daemon, and what cannot be served.

mod metrics;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::time::Duration;

use flannel_model::config::Configuration;
use flannel_model::config::configuration::listed;
use flannel_model::error::Chain;
use flannel_observe::Conditions;
use flannel_registry::{ConfigChanges as _, ConfigSource, RegistryError, WatchError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::chance;
use crate::pauses::growing;
pub use metrics::ConfigMetrics;

/// How often the configuration is read, whether or not a change was told of.
const RESYNC: Duration = Duration::from_secs(60);
/// Pauses between attempts to follow it: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// A source that was followed for this time is well.
const STEADY: Duration = Duration::from_secs(30);

/// The configuration that is served, for whoever depends on it.
pub type Served = watch::Receiver<Configuration>;

/// Follows the configuration.
pub struct Follower<S> {
    source: S,
    served: watch::Sender<Configuration>,
    conditions: Conditions,
    metrics: ConfigMetrics,
}

/// The source cannot be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Read(#[from] RegistryError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl<S: ConfigSource> Follower<S> {
    /// Serves `configuration`, and follows `source` once it [runs](Self::run). What cannot be served goes to `conditions`.
    pub fn new(
        source: S,
        configuration: Configuration,
        conditions: Conditions,
        metrics: ConfigMetrics,
    ) -> (Self, Served) {
        metrics.serving(&configuration.hash());
        let (served, receiver) = watch::channel(configuration);
        (Self { source, served, conditions, metrics }, receiver)
    }

    /// Follows the source, without end.
    pub async fn run(self) -> Infallible {
        let mut pauses = growing(RETRY);
        loop {
            let since = Instant::now();
            let error = match self.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // That the registry is away is told by whoever follows the leases.
            debug!(error = %Chain(&error), "cannot follow the network configuration; trying again");
            if since.elapsed() >= STEADY {
                pauses = growing(RETRY);
            }
            sleep(pauses.next().unwrap_or(RETRY.1)).await;
        }
    }

    async fn follow(&self) -> Result<Infallible, FollowError> {
        let mut changes = self.source.config_changes().await?;
        loop {
            self.take(self.source.config().await)?;
            tokio::select! {
                changed = changes.next() => changed?,
                // Hosts that started together need not read together.
                () = sleep(RESYNC.mul_f64(chance::between(0.8..1.2))) => {}
            }
        }
    }

    /// Serves what was read if that can be done at once.
    fn take(&self, read: Result<String, RegistryError>) -> Result<(), RegistryError> {
        let text = match read {
            Ok(text) => text,
            // A registry that is away says nothing of the configuration.
            Err(error) if !error.is_absence() => {
                self.tell(Some(format!("{}; the one of before stays in force", Chain(&error))));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.tell(self.serve(text).err());
        Ok(())
    }

    /// Serves the configuration; or says why that of before stays in force.
    fn serve(&self, text: String) -> Result<(), String> {
        if self.served.borrow().text == text {
            return Ok(());
        }
        let next = Configuration::parse(text).map_err(|flaw| {
            format!(
                "the network configuration was changed and cannot be served, so the one of before stays in force: {}",
                Chain(&flaw)
            )
        })?;
        let changes = self.served.borrow().changes(&next);
        if !changes.restart.is_empty() {
            return Err(format!(
                "the network configuration was changed and the one of before stays in force on this host until its \
                 flanneld is restarted: {}",
                listed(&changes.restart)
            ));
        }
        let hash = next.hash();
        info!(hash, changes = listed(&changes.live), "the network configuration was changed");
        self.metrics.serving(&hash);
        self.served.send_replace(next);
        Ok(())
    }

    /// Tells once why the configuration is not the one that is served, if so.
    fn tell(&self, outdated: Option<String>) {
        self.metrics.set_stale(outdated.is_some());
        let before = self.conditions.outdated();
        if before == outdated {
            return;
        }
        match &outdated {
            Some(reason) => warn!("{reason}"),
            None => info!("the network configuration in the registry is the one that is served again"),
        }
        self.conditions.set_outdated(outdated);
    }
}
