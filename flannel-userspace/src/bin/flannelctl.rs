//! `flannelctl`: what flanneld's datapath does, read from the pinned BPF maps.

use std::io::{ErrorKind, Write as _, stdout};
use std::process::ExitCode;

use clap::Parser as _;
use flannel_userspace::cli::flannelctl::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("flannelctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints `text`. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("flannelctl: cannot print: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
