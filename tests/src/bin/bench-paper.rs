//! Repeats the experiment of 2017 with containers of Docker. `cargo xtask bench paper` runs it.

use clap::Parser as _;
use flannel_tests::bench::paper::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
