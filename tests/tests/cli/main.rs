//! The command lines, as people and scripts use them.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod flannelctl;
mod flanneld;

use std::process::{Command, Output};

use flannel_tests::binaries;

/// Runs one of the programs to its end.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(binaries::find(program).unwrap()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
