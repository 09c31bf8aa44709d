//! Reports to the service manager.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use flannel_observe::{Conditions, Liveness};
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

/// How many signs of life fit into the time in which the service manager expects one.
const SIGNS: u32 = 3;

/// How many messages may wait for a service manager that is slow to read.
const WAITING: usize = 16;
/// How long the end of the daemon waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the thread that writes to the service manager gets.
enum Message {
    /// Lines of sd_notify(3).
    Lines(String),
    /// To be answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// Writing waits while the service manager does not read, and the daemon must not: it has a thread of its own.
static WRITER: LazyLock<SyncSender<Message>> = LazyLock::new(|| {
    let (sender, messages) = sync_channel(WAITING);
    std::thread::spawn(move || {
        flannel_privileges::enter_thread();
        write(&messages);
    });
    sender
});

fn write(messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Lines(lines) => {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&lines)]) {
                    debug!(%error, "the service manager does not listen");
                }
            }
            // Nobody may be left to receive it.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// Notifies the service manager, if there is one.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    if WRITER.try_send(Message::Lines(lines.join("\n"))).is_err() {
        debug!("the service manager does not read");
    }
}

/// Notifies the service manager that the daemon ends, and waits a moment until that is written.
pub(super) fn notify_end() {
    notify(&[NotifyState::Stopping]);
    let (done, written) = sync_channel(1);
    if std::env::var_os("NOTIFY_SOCKET").is_some() && WRITER.try_send(Message::Flush(done)).is_ok() {
        // A service manager that does not read misses it.
        let _ = written.recv_timeout(PATIENCE);
    }
}

/// Keeps the service manager's status line up to date: what is waited for, or what is not as it should be.
pub(super) async fn tell_service_manager(conditions: Conditions) {
    let mut changes = conditions.changes();
    let mut told = String::new();
    loop {
        let summary = conditions.summary();
        if summary != told {
            notify(&[NotifyState::Status(&summary)]);
            told = summary;
        }
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// Gives the service manager signs of life, if it waits for them (`WATCHDOG_USEC`), for as long as every part of the
/// daemon moves. It runs on the thread that does the daemon's work: while that is stuck, no sign is given either.
pub(super) async fn feed_watchdog(liveness: Liveness) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(limit / SIGNS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if is_healthy(&liveness) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn is_healthy(liveness: &Liveness) -> bool {
    let stopped = liveness.stopped();
    for (name, silence) in &stopped {
        warn!(name, ?silence, "a part of flanneld does not move: the service manager may restart it");
    }
    stopped.is_empty()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flannel_model::config::BackendError;
    use flannel_model::error::Chain;
    use flannel_observe::Liveness;

    use super::is_healthy;
    use crate::daemon::DaemonError;

    #[test]
    fn causes_follow_on_one_line() {
        let error = DaemonError::Backend(BackendError::Unknown("gcp".to_owned()));
        let text = Chain(&error).to_string();
        assert!(text.starts_with("Error fetching backend: unknown backend type: gcp"), "{text}");
    }

    #[test]
    fn a_part_that_does_not_move_makes_the_daemon_ill() {
        let liveness = Liveness::with_limit(Duration::ZERO);
        assert!(is_healthy(&liveness));
        let heart = liveness.heart("reconciler");
        assert!(!is_healthy(&liveness));
        drop(heart);
        assert!(is_healthy(&liveness));
    }
}
