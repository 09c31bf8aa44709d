//! Waits for the network's configuration: like stock flannel, a daemon without one keeps asking.

use std::time::Duration;

use flannel_control::remembered::Remembered;
use flannel_model::config::{Configuration, ConfigurationError};
use flannel_model::error::Chain;
use flannel_observe::Conditions;
use flannel_registry::ConfigSource;
use tokio::time::sleep;
use tracing::{error, warn};

use super::DaemonError;
use flannel_control::patience::Patience;
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
pub(super) async fn wait_for(
    registry: &impl ConfigSource,
    conditions: &Conditions,
) -> Result<Found, DaemonError> {
    loop {
        if let Some(configuration) = ask(registry, conditions, None).await? {
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
    conditions: &Conditions,
    remembered: &Remembered,
    patience: Duration,
) -> Result<Found, DaemonError> {
    if let Some(configuration) = ask(registry, conditions, Some(patience)).await? {
        return Ok(Found { configuration, is_remembered: false });
    }
    warn!(age = ?remembered.age(), "etcd is away: continuing with the network configuration that was read last");
    Ok(Found { configuration: Configuration::parse(remembered.config.clone())?, is_remembered: true })
}

/// Asks until there is a configuration; nothing when the registry is away for longer than `patience`, also while it is
/// asked: an attempt goes to every member, one after the other.
async fn ask(
    registry: &impl ConfigSource,
    conditions: &Conditions,
    patience: Option<Duration>,
) -> Result<Option<Configuration>, DaemonError> {
    let mut patience = Patience::new(patience);
    let mut throttle = LogThrottle::default();
    loop {
        let Some(answer) = patience.with(registry.config()).await else { return Ok(None) };
        let error = match answer.map(Configuration::parse) {
            Ok(Ok(configuration)) => {
                conditions.set_obstacle(None);
                return Ok(Some(configuration));
            }
            Ok(Err(ConfigurationError::Network(error))) if !error.is_final() => {
                patience.renew();
                Chain(&error).to_string()
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(error) if error.is_absence() && patience.is_over() => return Ok(None),
            Err(error) => {
                // One that answers is there.
                if !error.is_absence() {
                    patience.renew();
                }
                Chain(&error).to_string()
            }
        };
        if throttle.should_log(&error) {
            error!("Couldn't fetch network config: {error}; trying again every second");
        }
        conditions.set_obstacle(Some(error));
        let _ = patience.with(sleep(PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use flannel_common::Mac;
    use flannel_control::identity::Identity;
    use flannel_control::lease::Own;
    use flannel_control::remembered::Remembered;
    use flannel_model::family::{Addresses, PerFamily, Subnets};
    use flannel_observe::Conditions;
    use flannel_registry::{ConfigChanges, ConfigSource, RegistryError, WatchError};
    use rstest::rstest;
    use tokio::time::{Instant, timeout};

    use super::wait_for_or_remember;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A registry that is not there, or not usable.
    #[derive(Clone, Copy)]
    enum Registry {
        Silent,
        File(std::io::ErrorKind),
        Empty,
    }

    /// Nothing changes.
    struct Never;

    impl ConfigChanges for Never {
        async fn next(&mut self) -> Result<(), WatchError> {
            pending().await
        }
    }

    impl ConfigSource for Registry {
        type Changes = Never;

        async fn config_changes(&self) -> Result<Never, RegistryError> {
            Ok(Never)
        }

        async fn config(&self) -> Result<String, RegistryError> {
            match *self {
                Self::Silent => pending().await,
                Self::File(kind) => Err(RegistryError::ReadFile {
                    what: "client key",
                    path: "/etc/key.pem".into(),
                    source: kind.into(),
                }),
                Self::Empty => Err(RegistryError::ConfigMissing { key: "/x/config".to_owned() }),
            }
        }
    }

    fn remembered() -> Remembered {
        let own = Own {
            public: Addresses::default(),
            subnets: Subnets::NONE,
            term: None,
            expires: None,
            vtep_macs: PerFamily::NONE,
        };
        let config = r#"{"Network":"10.5.0.0/16"}"#.to_owned();
        Remembered::new(Identity::of(Mac([2, 0, 0, 0, 0, 1])), config, own, [].iter())
    }

    #[rstest]
    #[case::members_that_are_silent(Registry::Silent)]
    #[case::a_key_that_is_not_there(Registry::File(std::io::ErrorKind::NotFound))]
    #[case::a_key_of_somebody_else(Registry::File(std::io::ErrorKind::PermissionDenied))]
    #[tokio::test(start_paused = true)]
    async fn patience_ends_also_while_it_is_asked(#[case] registry: Registry) {
        let since = Instant::now();
        let conditions = Conditions::default();
        let _pending = conditions.add("network configuration read");
        let remembered = remembered();
        let waiting = wait_for_or_remember(&registry, &conditions, &remembered, PATIENCE);
        let configuration = waiting.await.unwrap();
        assert!(configuration.is_remembered);
        assert_eq!(since.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_answers_is_waited_for() {
        let remembered = remembered();
        let conditions = Conditions::default();
        let _pending = conditions.add("network configuration read");
        let waiting = wait_for_or_remember(&Registry::Empty, &conditions, &remembered, PATIENCE);
        assert!(timeout(100 * PATIENCE, waiting).await.is_err());
        let summary = conditions.summary();
        assert!(
            summary.contains("pending: network configuration read, for flannel config not found"),
            "{summary}"
        );
    }
}
