//! `flannelctl`: what flanneld's datapath does, read from the pinned BPF maps.

use std::process::ExitCode;

use clap::Parser as _;
use flannelctl::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
