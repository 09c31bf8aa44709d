//! `flannelctl down`: removes what flanneld made on this host.

use std::path::PathBuf;

use clap::Args;
use flannel_model::config::default_state_file;
use flannel_net::Netlink;
use serde::Serialize;

use super::exit::Outcome;
use super::output::Report;
use super::page::Page;
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
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let prefix = &context.place.etcd_prefix;
        let leftovers = Leftovers {
            etcd_prefix: prefix.clone(),
            pin_dir: context.place.pin_dir(),
            subnet_file: self.subnet_file.clone(),
            state_file: self.state_file.clone().unwrap_or_else(|| default_state_file(prefix)),
        };
        let found = leftovers.find(&Netlink::open()?).await?;
        if self.dry_run {
            return context.printer.print(&Removable { would_remove: found.lines() });
        }
        let mut removed = Vec::new();
        let done = found.remove(&mut removed).await;
        // Also of what was not finished.
        if done.is_ok() || !removed.is_empty() {
            context.printer.print(&Removed { removed })?;
        }
        Ok(done.map(|()| Outcome::AsItShouldBe)?)
    }
}

/// What was taken away.
#[derive(Debug, Serialize)]
struct Removed {
    /// One line for each thing.
    removed: Vec<String>,
}

/// What would be taken away.
#[derive(Debug, Serialize)]
struct Removable {
    /// One line for each thing.
    would_remove: Vec<String>,
}

const NOTHING: &str = "nothing is here to take away";

impl Report for Removable {
    fn show(&self, page: &mut Page) {
        if self.would_remove.is_empty() {
            page.line(NOTHING);
        }
        for thing in &self.would_remove {
            page.line(format!("would remove {thing}"));
        }
    }
}

impl Report for Removed {
    fn show(&self, page: &mut Page) {
        if self.removed.is_empty() {
            page.line(NOTHING);
        }
        for thing in &self.removed {
            page.line(format!("removed {thing}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Removable, Removed};
    use crate::output::Report as _;

    #[test]
    fn each_thing_is_told() {
        let removed = Removed { removed: vec!["device flannel.1".to_owned(), "pins /x".to_owned()] };
        assert_eq!(removed.text(), "removed device flannel.1\nremoved pins /x\n");
        assert_eq!(serde_json::to_string(&removed).unwrap(), r#"{"removed":["device flannel.1","pins /x"]}"#);
        assert_eq!(Removed { removed: Vec::new() }.text(), "nothing is here to take away\n");
        let removable = Removable { would_remove: removed.removed };
        assert_eq!(removable.text(), "would remove device flannel.1\nwould remove pins /x\n");
        assert_eq!(
            serde_json::to_string(&removable).unwrap(),
            r#"{"would_remove":["device flannel.1","pins /x"]}"#
        );
    }
}
