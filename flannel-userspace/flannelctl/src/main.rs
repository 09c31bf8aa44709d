//! `flannelctl`: what flanneld's datapath does, read from the pinned BPF maps.

use std::process::ExitCode;

use clap::Parser as _;
use flannelctl::Cli;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("flannelctl: {error:#}");
        ExitCode::FAILURE
    })
}
