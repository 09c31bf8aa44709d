//! A host of `cargo xtask cards`, played by a guest.

use std::process::ExitCode;

use clap::Parser as _;
use flannel_tests::cards::{Options, run};

fn main() -> anyhow::Result<ExitCode> {
    run(&Options::parse())
}
