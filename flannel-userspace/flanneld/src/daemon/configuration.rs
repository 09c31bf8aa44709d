//! Waits for the network's configuration: like stock flannel, a daemon without one keeps asking.

use std::time::Duration;

use flannel_control::remembered::Remembered;
use flannel_model::config::{Configuration, ConfigurationError};
use flannel_model::error::Chain;
use flannel_registry::ConfigSource;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::DaemonError;
use flannel_control::throttle::LogThrottle;

/// Pause between two attempts, stock flannel's.
const PAUSE: Duration = Duration::from_secs(1);

/// The configuration to begin with.
pub(super) struct Found {
    pub(super) configuration: Configuration,
    /// Whether it is the last known one, not the present one in the registry.
    pub(super) is_remembered: bool,
}

/// The configuration, as soon as there is one that can be served.
///
/// # Errors
/// It asks for something for which stock flannel ends.
pub(super) async fn wait_for(registry: &impl ConfigSource) -> Result<Found, DaemonError> {
    loop {
        if let Some(configuration) = ask(registry, None).await? {
            return Ok(Found { configuration, is_remembered: false });
        }
    }
}

/// The same, or what is remembered when the registry is away for longer than `patience`.
///
/// # Errors
/// As with [`wait_for`].
pub(super) async fn wait_for_or_remember(
    registry: &impl ConfigSource,
    remembered: &Remembered,
    patience: Duration,
) -> Result<Found, DaemonError> {
    if let Some(configuration) = ask(registry, Some(patience)).await? {
        return Ok(Found { configuration, is_remembered: false });
    }
    warn!(age = ?remembered.age(), "etcd is away: continuing with the network configuration that was read last");
    Ok(Found { configuration: Configuration::parse(remembered.config.clone())?, is_remembered: true })
}

/// Asks until there is a configuration; nothing when the registry is away for longer than `patience`.
async fn ask(
    registry: &impl ConfigSource,
    patience: Option<Duration>,
) -> Result<Option<Configuration>, DaemonError> {
    let start = Instant::now();
    let mut throttle = LogThrottle::default();
    loop {
        let error = match registry.config().await.map(Configuration::parse) {
            Ok(Ok(configuration)) => return Ok(Some(configuration)),
            Ok(Err(ConfigurationError::Network(error))) if !error.is_final() => Chain(&error).to_string(),
            Ok(Err(error)) => return Err(error.into()),
            Err(error) if error.is_absence() && patience.is_some_and(|longest| start.elapsed() > longest) => {
                return Ok(None);
            }
            Err(error) => Chain(&error).to_string(),
        };
        if throttle.should_log(&error) {
            error!("Couldn't fetch network config: {error}; trying again every second");
        }
        sleep(PAUSE).await;
    }
}
