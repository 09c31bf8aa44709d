//! Reports to the service manager.

use flannel_observe::Conditions;
use tracing::debug;

/// Notifies the service manager, if there is one.
pub(super) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager does not listen");
    }
}

/// Keeps the service manager's status line up to date.
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

#[cfg(test)]
mod tests {
    use flannel_model::config::BackendError;
    use flannel_model::error::Chain;

    use crate::daemon::DaemonError;

    #[test]
    fn causes_follow_on_one_line() {
        let error = DaemonError::Backend(BackendError::Unknown("gcp".to_owned()));
        let text = Chain(&error).to_string();
        assert!(text.starts_with("Error fetching backend: unknown backend type: gcp"), "{text}");
    }
}
