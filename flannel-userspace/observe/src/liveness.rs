//! Liveness: parts that must not stand still.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A heart that has not beaten for so long has stopped.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two beats of [`Heart::keep_beating`].
const PAUSE: Duration = Duration::from_secs(5);

/// Alive while every [`Heart`] beats. Clones share the hearts.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    limit: Duration,
    pulses: Arc<Mutex<Vec<Weak<Pulse>>>>,
}

/// Something that must not stand still. It is watched until it is dropped.
#[derive(Debug)]
pub struct Heart {
    start: Instant,
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    /// Milliseconds from the start to the last beat, by the monotonic clock.
    last: AtomicU64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Liveness {
    /// Hearts that did not beat for `limit` have stopped.
    #[must_use]
    pub fn with_limit(limit: Duration) -> Self {
        Self { start: Instant::now(), limit, pulses: Arc::default() }
    }

    /// Watches something from now on; this is its first beat.
    #[must_use]
    pub fn heart(&self, name: &'static str) -> Heart {
        let pulse = Arc::new(Pulse { name, last: AtomicU64::new(milliseconds(self.start.elapsed())) });
        self.with_pulses(|pulses| pulses.push(Arc::downgrade(&pulse)));
        Heart { start: self.start, pulse }
    }

    /// The hearts that have stopped, and for how long they stand still.
    #[must_use]
    pub fn stopped(&self) -> Vec<(&'static str, Duration)> {
        let now = self.start.elapsed();
        let silence =
            |pulse: &Pulse| now.saturating_sub(Duration::from_millis(pulse.last.load(Ordering::Relaxed)));
        self.with_pulses(|pulses| {
            pulses.retain(|pulse| pulse.strong_count() > 0);
            let watched = pulses.iter().filter_map(Weak::upgrade);
            let silent = watched.map(|pulse| (pulse.name, silence(&pulse)));
            silent.filter(|(_, silence)| *silence >= self.limit).collect()
        })
    }

    fn with_pulses<T>(&self, operation: impl FnOnce(&mut Vec<Weak<Pulse>>) -> T) -> T {
        operation(&mut self.pulses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Heart {
    /// It still moves.
    pub fn beat(&self) {
        self.pulse.last.store(milliseconds(self.start.elapsed()), Ordering::Relaxed);
    }

    /// Beats for as long as the runtime it runs on gives it a turn.
    pub async fn keep_beating(self) -> Infallible {
        loop {
            self.beat();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::Liveness;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_heart_that_stands_still_is_named() {
        let liveness = Liveness::with_limit(LIMIT);
        let event_loop = liveness.heart("event loop");
        let _idle = liveness.heart("reconciler");
        assert!(liveness.stopped().is_empty());
        sleep(2 * LIMIT);
        event_loop.beat();
        let stopped = liveness.stopped();
        let [(name, silence)] = stopped[..] else { panic!("one stands still, not {stopped:?}") };
        assert_eq!(name, "reconciler");
        assert!(silence >= 2 * LIMIT, "{silence:?}");
    }

    #[test]
    fn a_heart_that_is_gone_is_not_watched() {
        let liveness = Liveness::with_limit(Duration::ZERO);
        let heart = liveness.heart("event loop");
        assert_eq!(liveness.stopped().len(), 1);
        drop(heart);
        assert!(liveness.stopped().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_beating_while_the_runtime_runs() {
        let liveness = Liveness::with_limit(LIMIT);
        let beating = tokio::spawn(liveness.heart("event loop").keep_beating());
        sleep(2 * LIMIT);
        assert_eq!(liveness.stopped().len(), 1);
        tokio::time::sleep(super::PAUSE).await;
        assert!(liveness.stopped().is_empty());
        beating.abort();
    }
}
