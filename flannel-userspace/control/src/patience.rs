//! Patience with a registry that is away, whether it is silent or refuses at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::within;

/// How long a registry that is away is still waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    longest: Option<Duration>,
    end: Option<Instant>,
}

impl Patience {
    /// Begins now, and lasts so long; for ever without a time.
    #[must_use]
    pub fn new(longest: Option<Duration>) -> Self {
        let mut patience = Self { longest, end: None };
        patience.renew();
        patience
    }

    /// Begins anew, because the registry has answered.
    pub fn renew(&mut self) {
        self.end = self.longest.map(|longest| Instant::now() + longest);
    }

    /// What comes of an attempt, or of the pause before the next; nothing once patience is over.
    pub async fn with<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        within(self.end, attempt).await
    }

    /// Whether it is over: to be asked after attempts that fail, because one that fails at once is never late.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::Patience;

    const LONGEST: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn silence_is_over_in_time() {
        let (begin, patience) = (Instant::now(), Patience::new(Some(LONGEST)));
        assert_eq!(patience.with(pending::<()>()).await, None);
        assert_eq!(begin.elapsed(), LONGEST);
        assert!(patience.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_end_at_once_are_over_in_time() {
        let (begin, patience) = (Instant::now(), Patience::new(Some(LONGEST)));
        while !patience.is_over() {
            assert_eq!(patience.with(ready(7)).await, Some(7));
            let _ = patience.with(sleep(Duration::from_secs(2))).await;
        }
        assert_eq!(begin.elapsed(), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_renews_it() {
        let mut patience = Patience::new(Some(LONGEST));
        sleep(LONGEST).await;
        assert!(patience.is_over());
        patience.renew();
        assert!(!patience.is_over());
        assert!(!Patience::new(None).is_over(), "without a time it lasts for ever");
    }
}
