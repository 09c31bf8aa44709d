//! Two machines, each a host with a network card, on one wire: what native XDP and the card's offloads do to traffic
//! between their pods. `cargo xtask cards` makes the machines, which are guests. The far one obeys the near one, which
//! does the checks.

mod cases;
mod crafted;
mod far;
mod machine;
mod noted;
mod order;
mod pair;
mod relay;
mod report;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use far::serve;
use machine::Machine;
use pair::Pair;
use report::Report;

/// Plays one of two hosts that are on one wire with their cards, eth0.
#[derive(Debug, Parser)]
#[command(name = "card-host")]
pub struct Options {
    /// Which of the two
    #[arg(long)]
    side: Side,
    /// What the cards are like
    #[arg(long)]
    card: Card,
    /// Only cases whose names contain this
    #[arg(long)]
    case: Option<String>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Runs etcd and does the checks.
    Near,
    /// Does as the other one says.
    Far,
}

/// What the cards take over on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Card {
    /// Nothing.
    Bare,
    /// Checksums and the merging of packets, until the driver turns that off for XDP.
    Offloading,
    /// The same, without end.
    Stubborn,
}

/// Runs it. The exit code of the near one is 1 if a case failed.
///
/// # Errors
/// The hosts do not come up, or do not find each other.
pub fn run(options: &Options) -> Result<ExitCode> {
    let machine = Machine::new(options.side)?;
    if options.side == Side::Far {
        serve(machine)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::new(options.case.clone());
    let mut pair = Pair::meet(machine)?;
    cases::run(options.card, &mut pair, &mut report);
    pair.part()?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
