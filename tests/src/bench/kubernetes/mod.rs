//! How flanneld keeps up with the nodes of large clusters, at a real API server: how soon it is ready, from nothing and
//! after a restart, and what it uses while nodes give signs of life.

mod nodes;
mod report;

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;

use self::nodes::Nodes;
use crate::bench::control::Usage;
use crate::daemon::Daemon;
use crate::kubernetes::ApiServer;
use crate::network::{Host, HostOptions, Network, Place};
use crate::wait;

/// Fills a real API server with nodes of 13 kB and measures a flanneld in a network namespace: how soon it is
/// ready, CPU time, memory, and what it receives while nodes give signs of life.
///
/// Needs root, and the API server that `cargo xtask setup --kubernetes` builds. Nothing is left behind, however it ends.
#[derive(Debug, Parser)]
#[command(name = "bench-kubernetes", max_term_width = 110)]
pub struct Options {
    /// Numbers of nodes to measure with.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,15000", value_name = "NODES")]
    pub sizes: Vec<u32>,
    /// For how many seconds nodes give signs of life.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub heartbeats: u64,
    /// Writes the figures to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// Each node's kubelet writes its status once in so many seconds, if nothing changes.
const PERIOD: u32 = 300;
/// What follows a start is over by then.
const SETTLE: Duration = Duration::from_secs(5);
/// How long every peer may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// The figures of one size.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Nodes, without the host's own.
    pub nodes: u32,
    /// Without any state.
    pub from_nothing: Start,
    /// With the state and the datapath of before.
    pub restart: Start,
    /// While nodes give signs of life.
    pub heartbeats: Heartbeats,
}

/// A start, until every peer is programmed.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// How long that took.
    pub ready: Duration,
    /// CPU time until then.
    pub cpu: Duration,
    /// Resident memory some seconds later, in bytes.
    pub resident: u64,
    /// The most until then.
    pub peak: u64,
    /// Bytes that the host has received until then.
    pub received: u64,
}

/// What signs of life cost.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeats {
    /// How many there were a second.
    pub rate: f64,
    /// Bytes that the host has received a second.
    pub received: f64,
    /// Share of one CPU.
    pub cpu: f64,
}

/// Measures and prints.
///
/// # Errors
/// Something cannot be set up; the kernel lacks peers in the end.
pub fn run(options: &Options) -> Result<()> {
    let mut all = Vec::new();
    for &nodes in &options.sizes {
        eprintln!("measuring with {nodes} nodes …");
        all.push(measure(nodes, options).with_context(|| format!("with {nodes} nodes"))?);
    }
    println!("{}", report::table(&all));
    if let Some(path) = &options.write {
        fs::write(path, report::json(&all)?).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

fn measure(count: u32, options: &Options) -> Result<Figures> {
    let network = Network::new()?;
    let api = ApiServer::start(&network)?;
    let host = Host::new(&network, Place::Near, 1, HostOptions::default())?;
    api.add_node(&host.name, Some("10.250.0.0/24"))?;
    let nodes = Nodes::new(&api);
    nodes.fill(count)?;

    let net_conf = json!({ "Network": "10.0.0.0/8", "Backend": { "Type": "vxlan" } });
    let mut daemon = api.prepare_daemon(&host, &net_conf, &[])?;
    let from_nothing = start(&mut daemon, &host, count)?;
    daemon.terminate()?;
    let restart = start(&mut daemon, &host, count)?;
    let heartbeats = beat(&nodes, &daemon, &host, count, options)?;
    daemon.check_running()?;
    Ok(Figures { nodes: count, from_nothing, restart, heartbeats })
}

fn start(daemon: &mut Daemon, host: &Host, count: u32) -> Result<Start> {
    let (since, before) = (Instant::now(), received(host)?);
    daemon.restart()?;
    wait::until("every peer to be programmed", PATIENCE, || daemon.wait_ready())?;
    let (ready, at_ready) = (since.elapsed(), Usage::of(daemon.pid()?)?);
    let peers = daemon.ctl_json("status")?["peers"].as_u64();
    ensure!(peers == Some(count.into()), "{peers:?} peers for {count} nodes");
    let received = received(host)? - before;
    sleep(SETTLE);
    let resident = Usage::of(daemon.pid()?)?.resident;
    Ok(Start { ready, cpu: at_ready.cpu, resident, peak: at_ready.peak, received })
}

fn beat(
    nodes: &Nodes<'_>,
    daemon: &Daemon,
    host: &Host,
    count: u32,
    options: &Options,
) -> Result<Heartbeats> {
    let pid = daemon.pid()?;
    let (before, had) = (Usage::of(pid)?, received(host)?);
    let time = Duration::from_secs(options.heartbeats);
    let since = Instant::now();
    let beats = nodes.beat(count, f64::from(count) / f64::from(PERIOD), time)?;
    let seconds = since.elapsed().as_secs_f64();
    let cpu = Usage::of(pid)?.cpu_since(&before).as_secs_f64() / seconds;
    Ok(Heartbeats {
        rate: f64::from(beats) / seconds,
        received: (received(host)? - had) as f64 / seconds,
        cpu,
    })
}

/// Bytes that have arrived at the host.
fn received(host: &Host) -> Result<u64> {
    let text = host.namespace.within(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let field = line.and_then(|line| line.split_whitespace().next()).context("no eth0 in /proc/net/dev")?;
    Ok(field.parse()?)
}
