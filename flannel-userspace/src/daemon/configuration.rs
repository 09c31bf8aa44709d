//! The network's configuration, waited for: as stock flannel, a daemon without one stays and asks again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::DaemonError;
use super::report::Chain;
use crate::config::{ConfigError, NetworkConfig};
use crate::registry::Registry;

/// Pause between two attempts, stock flannel's.
const PAUSE: Duration = Duration::from_secs(1);
/// The same trouble is told again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// The configuration, as soon as there is one that can be served.
pub(super) async fn wait_for(registry: &impl Registry) -> Result<NetworkConfig, DaemonError> {
    let mut told: Option<(String, Instant)> = None;
    loop {
        let trouble = match read(registry).await {
            Ok(Ok(config)) => {
                info!(
                    network = %config.network, subnet_len = config.subnet_len, min = %config.subnet_min,
                    max = %config.subnet_max, backend = config.backend.kind, "read the network configuration"
                );
                return Ok(config);
            }
            Ok(Err(error)) if error.is_final() => return Err(error.into()),
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(trouble) => trouble,
        };
        let is_news = told.as_ref().is_none_or(|(text, when)| *text != trouble || when.elapsed() > REMINDER);
        if is_news {
            error!("Couldn't fetch network config: {trouble}; trying again every second");
            told = Some((trouble, Instant::now()));
        }
        sleep(PAUSE).await;
    }
}

/// The outer error is the registry's, in words.
async fn read(registry: &impl Registry) -> Result<Result<NetworkConfig, ConfigError>, String> {
    let json = registry.config().await.map_err(|error| Chain(&error).to_string())?;
    Ok(NetworkConfig::parse(&json))
}
