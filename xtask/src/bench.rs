//! `bench`: measurements on this machine.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::toolchain::Flag;
use crate::{build_ebpf, privilege, setup, workspace};

/// Measures the datapath, the daemon or the programs on this machine
///
/// First does what `setup` and `build-ebpf` do, and builds the release programs. Then runs as root, through
/// sudo if need be, and prints the figures beside the goals. Removes what it made, however it ends. Without a
/// subject: the datapath.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    subject: Option<Subject>,
    #[command(flatten)]
    datapath: Datapath,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// What a packet costs between pods, beside the bare link, routes, the kernel's vxlan and a TUN proxy
    Datapath(Datapath),
    /// How flanneld keeps up with the leases of large networks
    Control(Common),
    /// How flanneld keeps up with the nodes of large clusters of Kubernetes
    Kubernetes(Common),
    /// What each kernel program takes by itself, with few and many peers
    Lookup(Common),
    /// The experiment of 2017: containers of Docker on two hosts, 100 Mbit/s, beside the figures of then
    Paper(Common),
}

#[derive(clap::Args)]
struct Datapath {
    /// The short form, in two minutes: fails if a ratio exceeds its budget
    #[arg(long, conflicts_with = "write")]
    quick: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    toolchain: Flag,
    /// Writes figures into docs/benchmarks, too
    #[arg(long)]
    write: bool,
    /// Passed on to the measurement; -- --help lists them
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match args.subject.as_ref() {
        Some(Subject::Control(common)) => bench("bench-control", common, "control.json", &[]),
        Some(Subject::Kubernetes(common)) => bench("bench-kubernetes", common, "kubernetes.json", &[]),
        Some(Subject::Lookup(common)) => bench("bench-lookup", common, "lookup.toml", &[]),
        Some(Subject::Paper(common)) => bench("bench-paper", common, "paper.md", &[]),
        Some(Subject::Datapath(datapath)) => datapath.run(),
        None => args.datapath.run(),
    }
}

impl Datapath {
    fn run(&self) -> Result<ExitCode> {
        bench("bench-datapath", &self.common, "", if self.quick { &["--quick"] } else { &[] })
    }
}

/// Becomes the measurement; `target` below docs/benchmarks is what it writes.
fn bench(program: &str, common: &Common, target: &str, flags: &[&str]) -> Result<ExitCode> {
    build_ebpf::build(&setup::ensure(common.toolchain)?)?;
    let mut build = workspace::cargo();
    build.args([
        "build",
        "--release",
        "--locked",
        "-p",
        "flanneld",
        "-p",
        "flannelctl",
        "-p",
        "flannel-tests",
    ]);
    build.arg("--bins");
    workspace::run(build)?;
    let mut bench = Command::new(workspace::built("release", program)?);
    if common.write {
        bench.arg("--write").arg(workspace::root().join("docs/benchmarks").join(target));
    }
    bench.args(flags).args(&common.arguments);
    // Ctrl-C then reaches the measurement alone, and nothing ends before it has cleaned up.
    Err(privilege::become_command(privilege::as_root(bench)?))
}
