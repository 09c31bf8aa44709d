//! Measures what a packet between pods costs. `cargo xtask bench` runs it.

use clap::Parser as _;
use flannel_tests::bench::datapath::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
