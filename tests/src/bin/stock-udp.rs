//! Stock flannel's UDP backend, for tests: see the module of that name.

use clap::Parser as _;
use flannel_tests::stock_udp::{Options, run};

fn main() -> anyhow::Result<()> {
    run(Options::parse())
}
