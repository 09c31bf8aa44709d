//! Measures how flanneld keeps up with the leases of large networks. `cargo xtask bench control` runs it.

use clap::Parser as _;
use flannel_tests::bench::control::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
