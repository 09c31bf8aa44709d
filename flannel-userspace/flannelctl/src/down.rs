//! `flannelctl down`: removes what flanneld made on this host.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use flannel_model::config::default_state_file;
use flannel_net::Netlink;
use serde::Serialize;

use super::output::{Page, Report};
use super::place::Context;
use crate::leftovers::Leftovers;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File from which container runtimes read the leased subnet.
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
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let prefix = &context.place.etcd_prefix;
        let leftovers = Leftovers {
            etcd_prefix: prefix.clone(),
            pin_dir: context.place.pin_dir(),
            subnet_file: self.subnet_file.clone(),
            state_file: self.state_file.clone().unwrap_or_else(|| default_state_file(prefix)),
        };
        let removed = leftovers.remove(&Netlink::open()?).await?;
        context.printer.print(&Removed { removed })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What was taken away.
#[derive(Debug, Serialize)]
struct Removed {
    /// One line for each thing.
    removed: Vec<String>,
}

impl Report for Removed {
    fn show(&self, page: &mut Page) {
        if self.removed.is_empty() {
            page.line("nothing is here to take away");
        }
        for thing in &self.removed {
            page.line(format!("removed {thing}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Removed;
    use crate::output::Report as _;

    #[test]
    fn each_thing_is_told() {
        let removed = Removed { removed: vec!["device flannel.1".to_owned(), "pins /x".to_owned()] };
        assert_eq!(removed.text(), "removed device flannel.1\nremoved pins /x\n");
        assert_eq!(serde_json::to_string(&removed).unwrap(), r#"{"removed":["device flannel.1","pins /x"]}"#);
        assert_eq!(Removed { removed: Vec::new() }.text(), "nothing is here to take away\n");
    }
}
