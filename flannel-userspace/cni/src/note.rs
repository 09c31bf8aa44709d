//! What is said beside the result.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says something on the standard error, which runtimes log. Nobody need listen.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
