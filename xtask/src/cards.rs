//! `cards`: the datapath on multiqueue network cards, between two guests on one wire.

mod card;
mod pair;
mod tally;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum as _;

use self::card::Card;
use self::pair::Pair;
use self::tally::Tally;
use crate::toolchain::Flag;
use crate::vm::{Choice, Machine, Settings};
use crate::{build_ebpf, setup, vm};

/// Tries native XDP and a card's offloads between two guests with multiqueue virtio network cards
///
/// Two guests with a packaged kernel are joined by a wire in a network namespace, one pair for each kind of card. Each
/// plays a host with flanneld and a pod. A line says of each case whether it passed, and the last one how many did.
/// Whole content and losses count here; an emulated machine is not measured. Needs root, for the namespace and its TAP
/// devices.
#[derive(clap::Args)]
pub struct Args {
    /// A kernel: 5.10, 6.1, 6.12 or newest, Debian's cloud kernels
    #[arg(long = "kernel", value_name = "VERSION", default_values_t = ["6.12".to_owned()])]
    kernels: Vec<String>,
    /// Only this kind of card
    #[arg(long = "card", value_name = "KIND")]
    cards: Vec<Card>,
    /// Only cases whose names contain this
    #[arg(long = "case", value_name = "TEXT")]
    cases: Option<String>,
    #[command(flatten)]
    machine: Machine,
    /// How many seconds a pair of guests has
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    time_limit: u64,
    /// By how much time limits within a guest are stretched: an emulated machine is slow
    #[arg(long, value_name = "FACTOR", default_value_t = 10.0)]
    patience: f64,
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    wire::check()?;
    let choice = Choice { kernels: args.kernels.clone(), ..Choice::default() };
    let wanted = choice.wanted()?;
    vm::prepare()?;
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let programs = vm::build(false, &[])?;
    let settings = Settings {
        machine: args.machine.clone(),
        time_limit: Some(args.time_limit),
        patience: args.patience,
        modules: Vec::new(),
        console: false,
    };
    let cards = if args.cards.is_empty() { Card::value_variants() } else { &args.cards };
    let mut tally = Tally::default();
    for wanted in wanted {
        let kernel = choice.prepare(&wanted)?;
        for card in cards {
            eprintln!("== Linux {}: {}", kernel.release, card.description());
            let pair = Pair { settings: &settings, kernel: &kernel, programs: &programs, card: *card };
            tally += pair.run(args.cases.as_deref());
        }
    }
    println!("{tally}");
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
