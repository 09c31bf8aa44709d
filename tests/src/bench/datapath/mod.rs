//! What a packet between pods costs, with flannel-ebpf and with what it replaces.
//!
//! Every path has two hosts of its own with one cable between them, all network namespaces of this machine,
//! and all paths are there at the same time. They are measured in turn, in rounds; a ratio is made within a
//! round, so that whatever slows the machine down for a while slows both sides of it.

mod budget;
mod files;
mod goals;
mod lab;
mod link;
mod machine;
mod measure;
mod path;
mod plot;
mod report;
mod rounds;
mod samples;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;

use self::lab::Lab;
use self::path::{DIRECT, PATHS, Path};
use self::report::Style;
use self::rounds::Extent;
use self::samples::Samples;

pub(in crate::bench) use self::link::Link;
pub(in crate::bench) use self::machine::Machine;
pub(in crate::bench) use self::samples::Summary;

pub use self::budget::check;

/// Measures paths between two hosts played by network namespaces of this machine: the bare link, routes, the
/// kernel's vxlan device, a TUN proxy, and the datapath of flanneld. TCP over one and four connections, request and
/// answer, small packets, and the CPU time of each. In rounds, every path in each; figures are medians.
///
/// Needs root. Nothing is left behind, however it ends.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench-datapath", max_term_width = 110)]
pub struct Options {
    /// Rounds on each of the fast links; half as many on the slow one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Length of each measurement
    #[arg(long, default_value_t = 500, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(100..))]
    pub time: u64,
    /// The links to measure on
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Link::ALL.to_vec())]
    pub links: Vec<Link>,
    /// Only these paths, and the bare link; names as in the tables, divided by semicolons
    #[arg(long, value_delimiter = ';', value_name = "NAMES")]
    pub paths: Vec<String>,
    /// The short form: few paths on one link, in two minutes; fails if a ratio exceeds its budget, twice
    #[arg(long, conflicts_with_all = ["rounds", "time", "links", "paths", "write"])]
    pub quick: bool,
    /// Writes figures, tables and plots into this directory, too
    #[arg(long, value_name = "DIRECTORY")]
    pub write: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Results {
    machine: Machine,
    options: Options,
    paths: Vec<Path>,
    samples: Samples,
}

/// Measures and prints.
///
/// # Errors
/// A path cannot be set up, or carries nothing; the short form exceeds a budget.
pub fn run(options: &Options) -> Result<()> {
    if options.quick {
        return check();
    }
    let results = measure(options, &chosen(&options.paths)?)?;
    for link in &options.links {
        println!(
            "{}\n{}",
            Style::Terminal.heading(2, link.title()),
            report::figures(&results, *link, Style::Terminal)
        );
    }
    println!("{}\n{}", results.machine, report::goals(&results, Style::Terminal));
    if let Some(directory) = &options.write {
        files::write(&results, directory)?;
        eprintln!("written: {}", directory.display());
    }
    Ok(())
}

/// The paths of those names, always with the bare link, which all are compared with.
fn chosen(names: &[String]) -> Result<Vec<Path>> {
    if let Some(unknown) = names.iter().find(|name| PATHS.iter().all(|path| path.name != **name)) {
        let known: Vec<&str> = PATHS.iter().map(|path| path.name).collect();
        bail!("there is no path {unknown:?}; there are: {}", known.join("; "));
    }
    let is_chosen =
        |path: &&Path| names.is_empty() || path.name == DIRECT || names.iter().any(|name| name == path.name);
    Ok(PATHS.iter().filter(is_chosen).copied().collect())
}

fn measure(options: &Options, paths: &[Path]) -> Result<Results> {
    ensure!(paths.len() < 100, "the segment has no addresses for so many paths");
    let mut machine = Machine::now()?;
    eprintln!("setting {} paths up …", paths.len());
    let mut lab = Lab::new(paths)?;
    let mut samples = Samples::default();
    for link in Link::ALL.iter().filter(|link| options.links.contains(link)) {
        let rounds = usize::from(options.rounds);
        let rounds = if *link == Link::Slow { rounds.div_ceil(2) } else { rounds };
        // A slow link takes its time to be full.
        let time = Duration::from_millis(options.time * if *link == Link::Slow { 4 } else { 1 });
        rounds::measure(&mut lab, *link, Extent { rounds, time }, &mut samples)?;
    }
    machine.end()?;
    Ok(Results { machine, options: options.clone(), paths: paths.to_vec(), samples })
}
