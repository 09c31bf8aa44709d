//! The demonstration: a network of four hosts, once with each backend, beside the bare link.

mod measure;
mod progress;
mod report;

use measure::{Comparison, measure};
use progress::Progress;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use crate::network::{Node, Place};
use crate::traffic::transfer;
use crate::wait;

/// Shows what flannel-ebpf does: three hosts on one switch and one behind a router, all of them network
/// namespaces of this machine, with etcd, a flanneld on each host and two pods behind each. With each of the
/// backends udp, vxlan and host-gw in turn it shows the leases, pings every pod from every pod of the
/// other hosts, sends a file and measures TCP, the link from host to host included.
///
/// Needs root. Nothing is left behind, however it ends.
///
/// Exit codes: 0 all went well, 1 something failed, 2 bad usage, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "demo", max_term_width = 110)]
pub struct Options {
    /// How long each of the six measurements per backend takes, in seconds.
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
}

/// Bytes of the file sent.
const FILE: u64 = 256 << 20;
/// How long a line of a log may take.
const PATIENCE: Duration = Duration::from_secs(5);
const BACKENDS: [&str; 3] = ["udp", "vxlan", "host-gw"];

/// Runs the demonstration and prints it.
///
/// # Errors
/// Something could not be set up, or a pod did not reach another; names what.
pub fn run(options: &Options) -> Result<()> {
    let progress = Progress::start();
    let (mut comparisons, mut failures) = (Vec::new(), Vec::new());
    for backend in BACKENDS {
        progress.say(&format!("\n{}\n", report::title(backend)));
        match show(backend, options, &progress) {
            Ok(comparison) => comparisons.push((backend, comparison)),
            Err(error) => {
                progress.say(&format!("FAILED: {error:#}"));
                failures.push(format!("{backend}: {error:#}"));
            }
        }
    }
    progress.finish();
    if !comparisons.is_empty() {
        println!("\n{}\n\n{}", report::title("beside the bare link"), report::table(&comparisons));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

fn show(backend: &str, options: &Options, progress: &Progress) -> Result<Comparison> {
    progress.step(&format!("{backend}: starting four hosts, etcd and a flanneld on each host"));
    let mut cluster = Cluster::start(&plan(backend))?;
    progress.say(&report::leases(&cluster));

    progress.step(&format!("{backend}: pinging every pod from every pod of other hosts"));
    let nodes = reachable(backend, &cluster);
    let pairs = pod_pairs(&nodes);
    check_reached(&pairs)?;
    progress
        .say(&format!("pings: {0} of {0} ordered pairs of pods on different hosts answered", pairs.len()));
    if nodes.len() < cluster.members.len() {
        progress.say(&unreachable(&cluster)?);
    }

    let (from, to) = (cluster.pod(0)?, nodes.last().and_then(|node| node.endpoints().next()));
    let Some(to) = to else { bail!("there is no pod to send to") };
    progress.step(&format!("{backend}: sending a file from {} to {}", from.name, to.name));
    let sent = transfer(from, to, FILE)?;
    let (megabytes, rate) = (FILE >> 20, report::rate(sent.rate()));
    progress.say(&format!("file: {megabytes} MiB from {} to {}, SHA-256 equal, {rate}", from.name, to.name));

    let comparison = compare(backend, &cluster, options, progress)?;
    if backend != "host-gw" {
        let daemon = &cluster.members[0].daemon;
        for verb in ["status", "peers", "counters"] {
            progress.say(&format!("\nh1 # flannelctl {verb}\n{}", daemon.ctl(verb)?.trim_end()));
        }
    }
    cluster.members.iter_mut().try_for_each(|member| member.daemon.check_running())?;
    Ok(comparison)
}

fn plan(backend: &str) -> Plan {
    let near = [Place::Near; 3];
    let plan = Plan { pods: 2, places: near.to_vec(), ..Plan::new(&format!(r#"{{"Type":"{backend}"}}"#)) };
    plan.with_far_host()
}

/// The nodes that reach each other: host-gw cannot cross a router.
fn reachable<'a>(backend: &str, cluster: &'a Cluster) -> Vec<&'a Node> {
    let nodes = cluster.nodes().into_iter();
    nodes.filter(|node| backend != "host-gw" || node.host.place == Place::Near).collect()
}

/// What the daemon of the first host says about the host behind the router.
fn unreachable(cluster: &Cluster) -> Result<String> {
    let Member { daemon, node } = &cluster.members[0];
    let host = &node.host.name;
    let line = wait::until(&format!("flanneld on {host} to report who is out of reach"), PATIENCE, || {
        let log = fs::read_to_string(daemon.log())?;
        log.lines().find(|line| line.contains("is not on the link")).map(str::to_owned).context("it does not")
    })?;
    let said = line.split_once("WARN").map_or(line.as_str(), |(_, said)| said).trim();
    Ok(format!("by design host-gw does not cross routers; flanneld on {host} says: {said}"))
}

fn compare(backend: &str, cluster: &Cluster, options: &Options, progress: &Progress) -> Result<Comparison> {
    let time = Duration::from_secs(options.seconds);
    let hosts = [0, 1].map(|index| cluster.members[index].node.host.endpoint());
    progress.step(&format!("{backend}: measuring the bare link from h1 to h2"));
    let direct = measure(&hosts[0], &hosts[1], time)?;
    progress.step(&format!("{backend}: measuring from a pod on h1 to a pod on h2"));
    let overlay = measure(cluster.pod(0)?, cluster.pod(1)?, time)?;
    Ok(Comparison { direct, overlay })
}
