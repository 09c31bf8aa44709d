//! Measures what each kernel program takes by itself. `cargo xtask bench lookup` runs it.

use clap::Parser as _;
use flannel_tests::bench::lookup::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
