//! Why there is nothing to run.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// An answer instead of a daemon: help, the version, or an error in the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    text: String,
    exit_code: u8,
}

impl Refusal {
    /// What was asked for: exit code 0.
    pub(super) fn answer(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit_code: 0 }
    }

    /// The command line cannot be parsed: exit code 2, as with Go programs.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self { text: format!("error: {message}\n\nFor more information, try '--help'.\n"), exit_code: 2 }
    }

    /// The command line asks for something impossible: exit code 1.
    pub(super) fn value(message: impl fmt::Display) -> Self {
        Self { text: format!("error: {message}\n"), exit_code: 1 }
    }

    /// clap's message, and `notes` on it.
    pub(super) fn from_clap(error: &clap::Error, notes: impl Iterator<Item = String>) -> Self {
        if error.exit_code() == 0 {
            return Self::answer(error.to_string());
        }
        let mut text = error.to_string();
        notes.for_each(|note| text.push_str(&note));
        Self { text, exit_code: 2 }
    }

    /// Prints the answer to standard output, anything else to standard error.
    pub fn print(&self) {
        // Nobody reads a closed standard output.
        let _ = match self.exit_code {
            0 => io::stdout().write_all(self.text.as_bytes()),
            _ => io::stderr().write_all(self.text.as_bytes()),
        };
    }

    /// The exit code: 0 for an answer, 1 for what cannot be done, 2 for bad usage.
    pub fn exit_code(&self) -> ExitCode {
        self.exit_code.into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

#[cfg(test)]
impl Refusal {
    /// The exit code as a number.
    pub(super) const fn code(&self) -> u8 {
        self.exit_code
    }
}
