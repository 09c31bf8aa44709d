//! Passwords from files.

use std::fs;
use std::path::Path;

/// Reads the first line; editors leave an end of line that is no part of the password.
///
/// # Errors
/// The file cannot be read, or has no first line; says so, but for what stands in it.
pub fn read(path: &Path) -> Result<String, String> {
    let refusal =
        |why: String| format!("cannot take the password from --etcd-password-file {}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| refusal(error.to_string()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(refusal("its first line is empty".to_owned())),
    }
}
