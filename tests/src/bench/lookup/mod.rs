//! What each kernel program takes by itself, without devices: with few and many peers, always the same one and
//! any of them.

mod frames;
mod programs;
mod report;
mod stack;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

use self::programs::{Program, Programs};

/// Runs the encapsulating and decapsulating programs over single packets (BPF_PROG_TEST_RUN) and prints what one
/// run takes: with 10 to 65,000 peers, with packets of one peer (warm) and of any of them (cold). Needs root.
#[derive(Debug, Parser)]
#[command(name = "bench-lookup", max_term_width = 110)]
pub struct Options {
    /// Runs of each measurement
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Writes the figures to this file, too
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// Numbers of peers.
const SIZES: [u32; 4] = [10, 1_000, 10_000, 65_000];
/// What was measured when the programs were written last.
const FILE: &str = include_str!("../../../../docs/benchmarks/lookup.toml");
/// Another compiler makes somewhat other programs.
const TOLERANCE: f64 = 1.25;

/// The figures of a program.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Figures {
    /// Its name in the object.
    program: String,
    /// Instructions the verifier followed, with all capabilities.
    verified_instructions: u32,
    /// Bytes of stack it takes by the verifier's word, of which there are 512.
    stack_bytes: u32,
    /// A packet that is none of its business.
    passed_on_ns: u64,
    /// By number of peers, in the order of [`SIZES`].
    lookups: Vec<Lookup>,
}

/// Time of one run, the median.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lookup {
    peers: u32,
    /// Always the same peer.
    warm_ns: u64,
    /// Any of them.
    cold_ns: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct All {
    programs: Vec<Figures>,
}

/// Measures and prints.
///
/// # Errors
/// A program is refused, or does not forward its packets.
pub fn run(options: &Options) -> Result<()> {
    let mut all = All { programs: Vec::new() };
    for program in Program::ALL {
        let mut programs = Programs::load(program)?;
        let passed_on_ns = programs.passed_on(options.runs)?;
        let lookup = |peers: u32| {
            programs.fill(peers)?;
            let warm_ns = programs.forwarded(options.runs, |_| 0)?;
            // A multiplier without a common factor visits every peer, and none soon again.
            let cold_ns = programs.forwarded(options.runs, |run| run.wrapping_mul(48_271) % peers)?;
            anyhow::Ok(Lookup { peers, warm_ns, cold_ns })
        };
        let lookups = SIZES.map(lookup).into_iter().collect::<Result<_>>()?;
        all.programs.push(Figures {
            program: program.name.to_owned(),
            verified_instructions: programs.verified_instructions()?,
            stack_bytes: stack::depth(program)?,
            passed_on_ns,
            lookups,
        });
    }
    println!("{}", report::table(&all.programs));
    if let Some(path) = &options.write {
        let text = format!("{}{}", report::COMMENT, toml::to_string(&all)?);
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

/// Fails if a program has grown beyond what is written down.
///
/// # Errors
/// It has, or is not written down, or is refused.
pub fn check_sizes() -> Result<()> {
    let written: All = toml::from_str(FILE).context("lookup.toml is not understood")?;
    let mut grown = Vec::new();
    for program in Program::ALL {
        let name = program.name;
        let found = written.programs.iter().find(|figures| figures.program == name);
        let written = found.with_context(|| format!("lookup.toml has nothing about {name}"))?;
        let instructions = Programs::load(program)?.verified_instructions()?;
        let depth = stack::depth(program)?;
        grown.extend(check(name, "verified instructions", instructions, written.verified_instructions).err());
        grown.extend(check(name, "bytes of stack", depth, written.stack_bytes).err());
    }
    let grown: Vec<String> = grown.iter().map(ToString::to_string).collect();
    ensure!(grown.is_empty(), "{}", grown.join("\n"));
    Ok(())
}

fn check(name: &str, what: &str, now: u32, written: u32) -> Result<()> {
    println!("{name}: {now} {what}, {written} written down");
    ensure!(
        f64::from(now) <= f64::from(written) * TOLERANCE,
        "{name} has grown from {written} to {now} {what}; if that is meant to be: \
         cargo xtask bench lookup --write"
    );
    Ok(())
}
