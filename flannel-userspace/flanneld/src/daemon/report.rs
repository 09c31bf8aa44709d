//! How the daemon tells what it does: troubles in the log, and the service manager.

use std::time::Duration;

use flannel_observe::Conditions;
use tokio::time::Instant;
use tracing::debug;

/// Tells the service manager, where one listens.
pub(super) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager does not listen");
    }
}

/// Tells the service manager in a line how the daemon is, whenever that has changed.
pub(super) async fn tell_service_manager(conditions: Conditions) {
    let mut changes = conditions.changes();
    let mut told = String::new();
    while changes.next().await.is_some() {
        let summary = conditions.summary();
        if summary != told {
            notify(&[sd_notify::NotifyState::Status(&summary)]);
            told = summary;
        }
    }
}

/// The same trouble is told again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// Something that is tried again and again, and must not be told each time.
#[derive(Default)]
pub(super) struct LogThrottle(Option<(String, Instant)>);

impl LogThrottle {
    /// Whether `text` is to be told: it is another trouble than before, or one not told for long.
    pub(super) fn should_log(&mut self, text: &str) -> bool {
        let told = self.0.as_ref().is_some_and(|(told, when)| told == text && when.elapsed() < REMINDER);
        if !told {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        !told
    }
}

#[cfg(test)]
mod tests {
    use flannel_model::config::BackendError;
    use flannel_model::error::Chain;

    use super::LogThrottle;
    use crate::daemon::DaemonError;

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_told_once_a_minute() {
        let mut trouble = LogThrottle::default();
        assert!(trouble.should_log("away"));
        assert!(!trouble.should_log("away"));
        assert!(trouble.should_log("refused"), "another trouble");
        tokio::time::advance(super::REMINDER).await;
        assert!(trouble.should_log("refused"), "a reminder");
    }

    #[test]
    fn causes_follow_on_one_line() {
        let error = DaemonError::Backend(BackendError::Unknown("gcp".to_owned()));
        let text = Chain(&error).to_string();
        assert!(text.starts_with("Error fetching backend: unknown backend type: gcp"), "{text}");
    }
}
