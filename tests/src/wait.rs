//! Waiting for something to become true, and how long at most.

use std::env;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The factor of every time limit, for machines that are slow: emulated ones.
const PATIENCE: &str = "FLANNEL_TEST_PATIENCE";
const PAUSE: Duration = Duration::from_millis(20);

/// By how much time limits are stretched on this machine: 1, unless the environment says more.
#[must_use]
pub fn patience() -> f64 {
    static FACTOR: LazyLock<f64> = LazyLock::new(|| {
        let Ok(text) = env::var(PATIENCE) else { return 1.0 };
        factor(&text).unwrap_or_else(|| {
            eprintln!("{PATIENCE}={text:?} is no number from 1 to 1000: time limits are not stretched");
            1.0
        })
    });
    *FACTOR
}

fn factor(text: &str) -> Option<f64> {
    text.parse().ok().filter(|factor| (1.0..=1000.0).contains(factor))
}

/// A time limit of the rig as it is on this machine. Those that [`until`] and [`until_true`] are given are not to be
/// stretched before.
#[must_use]
pub fn stretched(limit: Duration) -> Duration {
    limit.mul_f64(patience())
}

/// Calls `attempt` until it succeeds, and returns what it returned. A failure that no waiting mends is to be
/// returned as `Ok(Err(…))`.
///
/// # Errors
/// It still fails after `limit`, [`stretched`]: says what was waited for, and the last failure.
pub fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = stretched(limit);
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {limit:?} for {what}")));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// Calls `is_so` until it is true.
///
/// # Errors
/// It is still false after `limit`, [`stretched`].
pub fn until_true(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || if is_so() { Ok(()) } else { Err(anyhow!("it did not happen")) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    #[test]
    fn limits_are_stretched_and_never_shortened() {
        assert_eq!(super::factor("12.5"), Some(12.5));
        assert_eq!(["0.5", "0", "-1", "NaN", "inf", "", "x"].map(super::factor), [None; 7]);
        let limit = Duration::from_secs(3);
        assert_eq!(super::stretched(limit), limit.mul_f64(super::patience()));
    }

    #[test]
    fn last_failure_and_purpose_are_told() {
        let mut attempts = 0;
        let error = super::until("the third attempt", Duration::from_millis(100), || {
            attempts += 1;
            Err::<(), _>(anyhow!("attempt {attempts} failed"))
        })
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("the third attempt") && text.contains(&format!("attempt {attempts} failed")));
        assert!(attempts > 2);
    }
}
