//! The value of a lease key.

use anyhow::{Result, ensure};
use flannel_model::lease::Attributes;

use crate::limit::{error_fits_the_log, timed};

/// What is accepted is the same when it is written and read again; a refusal fits the log.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    let attributes = match timed(|| Attributes::from_json(input))? {
        Ok(attributes) => attributes,
        Err(error) => return error_fits_the_log(&error),
    };
    let written = attributes.to_json()?;
    let again = Attributes::from_json(written.as_bytes())?;
    ensure!(again == attributes, "{attributes:?} is written as {written}, which is read as {again:?}");
    Ok(())
}
