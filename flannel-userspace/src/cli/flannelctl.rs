//! The command line of `flannelctl`: what the maps say, with or without a daemon.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use super::report::{Counters, Peers, Report, Status};
use crate::config::default_pin_dir;
use crate::datapath::Tables;

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
}

impl Cli {
    /// Does what was asked, and returns the text to print.
    pub fn run(&self) -> anyhow::Result<String> {
        let pin_dir = self.place.pin_dir.clone().unwrap_or_else(|| default_pin_dir(&self.place.etcd_prefix));
        let tables = Tables::open(&pin_dir).with_context(|| {
            format!("there is no readable datapath of the network {} here", self.place.etcd_prefix)
        })?;
        match self.verb {
            Verb::Status => self.print(&Status::read(&tables, &pin_dir)?),
            Verb::Peers => self.print(&Peers::read(&tables)?),
            Verb::Counters { all } => self.print(&Counters::read(&tables, all)?),
        }
    }

    fn print<R: Report + Serialize>(&self, report: &R) -> anyhow::Result<String> {
        match self.output {
            Output::Table => Ok(report.table()),
            Output::Json => serde_json::to_string_pretty(report).context("cannot write JSON"),
        }
    }
}
