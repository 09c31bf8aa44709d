//! The name of a lease key.

use anyhow::{Result, ensure};
use flannel_model::lease::Key;

use crate::limit::{fits_the_log, timed};

/// A name that is accepted has one spelling; junk fits the log.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    let key = timed(|| Key::from_bytes(input))?;
    let text = key.to_string();
    match key {
        Key::Subnet(_) => ensure!(text.as_bytes() == input, "read as {text}"),
        Key::Junk(_) => fits_the_log(&text)?,
    }
    Ok(())
}
