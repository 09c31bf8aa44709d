//! How flanneld keeps up with the leases of large networks: how soon it is ready, how soon a change is in the
//! programs' table, and what it uses.

mod network;
mod propagation;
mod report;
mod usage;
mod verify;

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;

use self::network::{Backend, Lab, Leases, PREFIX};
use self::propagation::{Churn, Percentiles};
pub use self::usage::Usage;
use crate::daemon::{Daemon, Settings};
use crate::etcd::Etcd;
use crate::wait;

/// Fills a private etcd with leases and measures a flanneld in a network namespace: how soon it is ready, how
/// soon a lease that is put is in the programs' table of peers, CPU time, memory, and bytes of its log.
///
/// Needs root. Nothing is left behind, however it ends.
#[derive(Debug, Parser)]
#[command(name = "bench-control", max_term_width = 110)]
pub struct Options {
    /// Numbers of leases to measure with.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,60000", value_name = "LEASES")]
    pub sizes: Vec<u32>,
    /// The size at which changes are measured.
    #[arg(long, default_value_t = 10_000, value_name = "LEASES")]
    pub changes_at: u32,
    /// The backend.
    #[arg(long, value_enum, default_value_t = Backend::Vxlan, value_name = "BACKEND")]
    pub backend: Backend,
    /// Writes the figures to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// The smallest size at which idling is measured.
const IDLE_FROM: u32 = 10_000;
/// For how long.
const IDLE: Duration = Duration::from_secs(20);
/// What follows a start is over by then.
const SETTLE: Duration = Duration::from_secs(4);
/// How long the subnet file may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures of one size.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Leases of other hosts.
    pub peers: u32,
    /// From the start of the process until the subnet file is there.
    pub subnet_file: Duration,
    /// Until the service manager is notified that it is ready.
    pub ready: Duration,
    /// Used until then.
    pub at_ready: Usage,
    /// Used after the last measurement.
    pub at_end: Usage,
    /// Share of one CPU while nothing happens.
    pub idle: Option<f64>,
    /// From a put to the entry, when nothing else happens.
    pub put: Option<Percentiles>,
    /// The same while many leases change.
    pub churn: Option<Churn>,
    /// Bytes of the log, over all of it.
    pub log: u64,
}

/// Measures and prints.
///
/// # Errors
/// Something cannot be set up; the kernel does not hold in the end what the leases say.
pub fn run(options: &Options) -> Result<()> {
    let mut all = Vec::new();
    for &peers in &options.sizes {
        eprintln!("measuring with {peers} leases …");
        all.push(measure(peers, options).with_context(|| format!("with {peers} leases"))?);
    }
    println!("{}", report::table(&all));
    if let Some(path) = &options.write {
        fs::write(path, report::json(&all)?).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

fn measure(peers: u32, options: &Options) -> Result<Figures> {
    let mut lab = Lab::new(options.backend)?;
    let leases = Leases::new(&lab, options.backend);
    let host = lab.host.clone();
    let verify = |daemon, peers| verify::kernel_holds(&host, daemon, options.backend, peers);
    leases.fill(peers)?;
    let settings = Settings { endpoint: lab.etcd.url(), prefix: PREFIX.to_owned(), flags: Vec::new() };

    let start = Instant::now();
    let mut daemon = Daemon::start(&lab.host, settings)?;
    let subnet_file = time_of_subnet_file(&mut daemon, start)?;
    daemon.wait_ready()?;
    let (ready, at_ready) = (start.elapsed(), Usage::of(daemon.pid()?)?);
    verify(&daemon, peers)?;

    let idle = (peers >= IDLE_FROM).then(|| idle(&daemon)).transpose()?;
    let (mut put, mut churn) = (None, None);
    if peers == options.changes_at {
        put = Some(propagation::quiet(&leases, &daemon, peers)?);
        churn = Some(propagation::under_churn(&leases, &daemon, peers)?);
        verify(&daemon, propagation::peers_after(peers))?;
    }
    if peers >= IDLE_FROM {
        list_anew(&mut lab.etcd, &daemon)?;
    }
    daemon.check_running()?;
    let log = fs::metadata(daemon.log())?.len();
    let at_end = Usage::of(daemon.pid()?)?;
    Ok(Figures { peers, subnet_file, ready, at_ready, at_end, idle, put, churn, log })
}

fn time_of_subnet_file(daemon: &mut Daemon, start: Instant) -> Result<Duration> {
    let path = daemon.subnet_file();
    while !path.exists() && start.elapsed() < PATIENCE {
        daemon.check_running()?;
        sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed())
}

/// Has everything listed and compared once more, as etcd's restart does: what is resident then is what stays.
fn list_anew(etcd: &mut Etcd, daemon: &Daemon) -> Result<()> {
    etcd.kill()?;
    sleep(SETTLE);
    etcd.restart()?;
    wait::until_true("the leases to be listed again", PATIENCE, || {
        fs::read_to_string(daemon.log()).is_ok_and(|log| log.contains("the registry is back"))
    })?;
    sleep(SETTLE);
    Ok(())
}

/// Share of one CPU that is used while nothing happens.
fn idle(daemon: &Daemon) -> Result<f64> {
    sleep(SETTLE);
    let (pid, since) = (daemon.pid()?, Instant::now());
    let before = Usage::of(pid)?;
    sleep(IDLE);
    Ok(Usage::of(pid)?.cpu_since(&before).as_secs_f64() / since.elapsed().as_secs_f64())
}
