//! Waiting for something to become true.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `attempt` until it succeeds, and returns what it returned.
///
/// # Errors
/// It still fails after `limit`: says what was waited for, and the last failure.
pub fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
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
/// It is still false after `limit`.
pub fn until_true(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || if is_so() { Ok(()) } else { Err(anyhow!("it did not happen")) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

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
