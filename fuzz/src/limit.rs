//! Limits of what an input may cost.

use std::error::Error;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};

/// Longest time on the processor for one input. Without optimisation, as in most test runs, the code is some
/// twenty times slower.
const LONGEST: Duration =
    Duration::from_millis(if cfg!(all(debug_assertions, not(feature = "libfuzzer"))) { 200 } else { 10 });
/// Longest message in bytes: it goes to the log, perhaps every second.
const LONGEST_MESSAGE: usize = 1024;

/// What `read` returns, if it does not take too long. Only time on the processor counts: other programs may
/// keep the machine busy.
///
/// # Errors
/// It takes too long.
pub fn timed<T>(read: impl FnOnce() -> T) -> Result<T> {
    let start = processor_time()?;
    let value = read();
    let taken = processor_time()?.saturating_sub(start);
    ensure!(taken <= LONGEST, "took {taken:?}, more than {LONGEST:?}");
    Ok(value)
}

fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Whether a text with parts of the input can go to the log: short, and on one line.
///
/// # Errors
/// It cannot.
pub fn fits_the_log(text: &str) -> Result<()> {
    ensure!(text.len() <= LONGEST_MESSAGE, "a message has {} bytes: {text:.100}…", text.len());
    ensure!(!text.contains(char::is_control), "a message has control characters: {text:?}");
    Ok(())
}

/// The same for an error and what lies below it.
///
/// # Errors
/// It cannot.
pub fn error_fits_the_log(error: &(dyn Error + 'static)) -> Result<()> {
    fits_the_log(&error.to_string())?;
    error.source().map_or(Ok(()), error_fits_the_log)
}
