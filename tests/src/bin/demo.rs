//! Shows what flannel-ebpf does, on this machine alone.

use clap::Parser as _;
use flannel_tests::demo::{Options, run};

fn main() -> anyhow::Result<()> {
    run(&Options::parse())
}
