//! Failures that repeat, and must not be logged each time.

use std::time::Duration;

use tokio::time::Instant;

/// The same error is logged again after this long.
const REMINDER: Duration = Duration::from_secs(60);

/// Something that is tried repeatedly, and must not be logged each time.
#[derive(Default)]
pub struct LogThrottle(Option<(String, Instant)>);

impl LogThrottle {
    /// Whether to log `text`: it is another error than before, or was not logged for long.
    pub fn should_log(&mut self, text: &str) -> bool {
        let is_repeated =
            self.0.as_ref().is_some_and(|(logged, when)| logged == text && when.elapsed() < REMINDER);
        if !is_repeated {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        !is_repeated
    }
}

#[cfg(test)]
mod tests {
    use super::LogThrottle;

    #[tokio::test(start_paused = true)]
    async fn the_same_error_is_logged_once_a_minute() {
        let mut throttle = LogThrottle::default();
        assert!(throttle.should_log("away"));
        assert!(!throttle.should_log("away"));
        assert!(throttle.should_log("refused"), "another error");
        tokio::time::advance(super::REMINDER).await;
        assert!(throttle.should_log("refused"), "a reminder");
    }
}
