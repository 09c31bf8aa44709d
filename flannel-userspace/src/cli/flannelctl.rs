//! The command line of `flannelctl`: what the maps say, with or without a daemon.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::runtime::Builder;

use super::report::{Counters, Peers, Removed, Report, Status};
use crate::config::{default_pin_dir, default_state_file};
use crate::datapath::Tables;
use crate::down::Leftovers;
use crate::kernel::Netlink;

/// Shows what flanneld's datapath does, read from the pinned BPF maps; the daemon need not run.
///
/// Exit codes: 0 done, 1 the maps cannot be read, 2 bad usage.
#[derive(Debug, Parser)]
#[command(name = "flannelctl", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

/// Which network's maps to read.
#[derive(Debug, Args)]
struct Place {
    /// The network's prefix in etcd, from which the default of --pin-dir is made.
    #[arg(
        long,
        env = "FLANNELD_ETCD_PREFIX",
        default_value = super::DEFAULT_ETCD_PREFIX,
        value_name = "PREFIX",
        global = true
    )]
    etcd_prefix: String,
    /// Where flanneld has pinned its maps [default: below /sys/fs/bpf, made from the prefix].
    #[arg(long, env = "FLANNELD_PIN_DIR", value_name = "DIR", global = true)]
    pin_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// This host's subnet, backend and devices, and which programs are attached.
    Status,
    /// The peers, and what was forwarded to and from each.
    Peers,
    /// Packets and bytes by hook and reason: forwarded, passed on, dropped.
    Counters {
        /// Also the reasons nothing was counted under.
        #[arg(long)]
        all: bool,
    },
    /// Takes away what flanneld made on this host: programs, maps, device, routes and files. Stop flanneld first.
    /// The lease stays in etcd until it expires.
    Down {
        /// File that tells container runtimes the leased subnet.
        #[arg(
            long,
            env = "FLANNELD_SUBNET_FILE",
            default_value = "/run/flannel/subnet.env",
            value_name = "FILE"
        )]
        subnet_file: PathBuf,
        /// File of the last known leases [default: below /var/lib/flannel-ebpf, made from the prefix].
        #[arg(long, env = "FLANNELD_STATE_FILE", value_name = "FILE")]
        state_file: Option<PathBuf>,
    },
}

impl Cli {
    /// Does what was asked, and returns the text to print.
    ///
    /// # Errors
    /// The maps cannot be read, or something cannot be taken away.
    pub fn run(&self) -> anyhow::Result<String> {
        let prefix = &self.place.etcd_prefix;
        let pin_dir = self.place.pin_dir.clone().unwrap_or_else(|| default_pin_dir(prefix));
        let tables = || {
            Tables::open(&pin_dir)
                .with_context(|| format!("there is no readable datapath of the network {prefix} here"))
        };
        match &self.verb {
            Verb::Status => self.print(&Status::read(&tables()?, &pin_dir)?),
            Verb::Peers => self.print(&Peers::read(&tables()?)?),
            Verb::Counters { all } => self.print(&Counters::read(&tables()?, *all)?),
            Verb::Down { subnet_file, state_file } => self.down(&Leftovers {
                etcd_prefix: prefix.clone(),
                pin_dir,
                subnet_file: subnet_file.clone(),
                state_file: state_file.clone().unwrap_or_else(|| default_state_file(prefix)),
            }),
        }
    }

    fn down(&self, leftovers: &Leftovers) -> anyhow::Result<String> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let removed = runtime
            .block_on(async { leftovers.remove(&Netlink::open()?).await.map_err(anyhow::Error::from) })?;
        self.print(&Removed { removed })
    }

    fn print<R: Report + Serialize>(&self, report: &R) -> anyhow::Result<String> {
        match self.output {
            Output::Table => Ok(report.table()),
            Output::Json => serde_json::to_string_pretty(report).context("cannot write JSON"),
        }
    }
}
