//! `simulate`: the control planes of whole networks, without kernel, etcd and waiting.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::install::{Installer, TOOLS};
use crate::{privilege, workspace};

/// Runs the control planes of whole networks in one process, and checks what must be so
///
/// Each seed is a network of 3 to 50 hosts with random events: addresses change, devices vanish, leases are spoiled,
/// the registry goes away or is restored, the kernel refuses, daemons are killed. After a quiet time every kernel must
/// be as the registry asks for. The seed that fails is printed with what happened last, and fails again with
/// --seed. Neither root nor the kernel programs are needed. Seeds that failed once stand in
/// flannel-userspace/simulator/seeds.txt, and the tests replay them.
#[derive(clap::Args)]
pub struct Args {
    /// Runs this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run, from 0 on
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// How many events each network has
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Prints what the daemons log from this level on
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    Installer::of_this_machine()?.ensure(TOOLS)?;
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked", "-p", "flannel-simulator"]);
    workspace::run(build)?;
    let mut simulate = Command::new(workspace::built("release", "simulate")?);
    match args.seed {
        Some(seed) => simulate.args(["--seed", &seed.to_string()]),
        None => simulate.args(["--seeds", &args.seeds.to_string()]),
    };
    simulate.args(["--steps", &args.steps.to_string()]);
    simulate.args(args.log.iter().flat_map(|level| ["--log", level]));
    Err(privilege::become_command(simulate))
}
