//! `simulate`: runs the control planes of networks with random events.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// Runs the control planes of whole networks in one process, and checks what must be so
///
/// Each seed is a network of 3 to 50 hosts with random events. The seed that fails is printed with its last events;
/// with --seed it fails again in the same way.
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Arguments {
    /// Runs this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run, from 0 on
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u64,
    /// How many events each network has
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Prints what the daemons log from this level on, and what happens in between
    #[arg(long, value_name = "LEVEL")]
    log: Option<tracing::Level>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(level) = arguments.log {
        tracing_subscriber::fmt().with_max_level(level).without_time().with_target(false).init();
    }
    if arguments.seed.is_none()
        && let Err(error) = flannel_simulator::cost()
    {
        println!("{error:#}");
        return ExitCode::FAILURE;
    }
    let seeds = arguments.seed.map_or(0..arguments.seeds, |seed| seed..seed + 1);
    let start = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return failed;
                }
                let run = std::panic::catch_unwind(|| flannel_simulator::run(seed, arguments.steps));
                match run {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push(format!("{error:#}")),
                    Err(_) => failed.push(format!("seed {seed}, {} steps: a panic", arguments.steps)),
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    for failure in &failed {
        println!("{failure}\n");
    }
    let (count, seconds) = (seeds.end - seeds.start, start.elapsed().as_secs_f64());
    println!("{} of {count} seeds failed, {} steps each, {seconds:.1} s", failed.len(), arguments.steps);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
