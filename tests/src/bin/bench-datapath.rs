//! Measures what a packet costs on its way between pods. `cargo xtask bench` runs it.

use clap::Parser as _;
use flannel_tests::bench::datapath::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
