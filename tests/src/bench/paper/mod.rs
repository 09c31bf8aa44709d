//! The experiment of 2017 whose figures flannel's backends are known by: containers of Docker on two hosts, a link of
//! 100 Mbit/s, TCP measured by iperf.
//!
//! On such a link every backend is as fast as its headers let it be: what of each Ethernet frame is payload is
//! computed beside what was measured.

mod bound;
mod lab;
mod report;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use self::lab::Lab;
use super::datapath::{Machine, Summary};
use crate::containers::Dockerd;

/// The paths: their names, the backends, and the figures of 2017, in bits per second.
const PATHS: [Path; 4] = [
    Path { name: "direct", backend: None, published: 94.3e6 },
    Path { name: "udp", backend: Some(r#"{"Type":"udp"}"#), published: 92.7e6 },
    Path { name: "vxlan", backend: Some(r#"{"Type":"vxlan"}"#), published: 91.2e6 },
    Path { name: "host-gw", backend: Some(r#"{"Type":"host-gw"}"#), published: 94.3e6 },
];

/// A way between containers on two hosts.
#[derive(Clone, Copy, Debug)]
struct Path {
    name: &'static str,
    /// The backend's configuration; without one, containers have the host's network.
    backend: Option<&'static str>,
    /// What was published of it.
    published: f64,
}

/// Repeats the experiment of 2017: two hosts, a link of 100 Mbit/s between them, a container of Docker on each, and
/// iperf3 over TCP; directly and with the backends udp, vxlan and host-gw. In rounds, every path in each; figures are
/// medians, beside those of 2017 and beside what the headers leave of the link.
///
/// Needs root, dockerd and iperf3. Nothing is left behind, however it ends.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench-paper", max_term_width = 110)]
pub struct Options {
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Length of each measurement, behind one second that does not count
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub time: u32,
    /// Writes the figures into this file, too, as Markdown
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A path cannot be set up, or carries nothing.
pub fn run(options: &Options) -> Result<()> {
    let mut machine = Machine::now()?;
    eprintln!("setting {} paths up, with dockerd on {} hosts …", PATHS.len(), 2 * PATHS.len());
    let lab = Lab::new(&PATHS)?;
    let mut rates = vec![Vec::new(); PATHS.len()];
    for round in 0..usize::from(options.rounds) {
        eprintln!("round {} of {} …", round + 1, options.rounds);
        // Another path begins each time: none is always behind the same one.
        for turn in 0..PATHS.len() {
            let place = (turn + round) % PATHS.len();
            rates[place].push(lab.measure(place, options.time)?);
        }
    }
    machine.end()?;
    let rows = lab.ways.iter().zip(rates).filter_map(|(way, rates)| {
        Some(report::Row { path: way.path, bound: way.bound, rate: Summary::of(rates)? })
    });
    let report = report::Report {
        rows: rows.collect(),
        version: Dockerd::version()?,
        options: options.clone(),
        machine,
    };
    println!("{}", report.terminal());
    if let Some(file) = &options.write {
        fs::write(file, report.markdown()).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}
