//! Measures how flanneld keeps up with the nodes of large clusters. `cargo xtask bench kubernetes` runs it.

use clap::Parser as _;
use flannel_tests::bench::kubernetes::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
