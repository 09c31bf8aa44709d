//! `flannelctl leave`: takes this host out of the network for good.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use flannel_control::lease::Withdrawn;
use flannel_control::socket::{Claimed, Left, Request};
use serde::Serialize;

use super::daemon::Daemon;
use super::output::{Page, Report, Tone};
use super::place::Context;

/// Bad usage, as with clap.
const USAGE: u8 = 2;

/// What comes of it.
const WARNING: &str = "Other hosts will not reach the pods of this host any more, and its subnet becomes free for \
                       another host. flanneld ends.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Do not ask back.
    #[arg(short, long)]
    yes: bool,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        if !self.yes && !io::stdin().is_terminal() {
            eprintln!("flannelctl: {WARNING} Say --yes where nobody can be asked whether that is meant.");
            return Ok(ExitCode::from(USAGE));
        }
        let daemon = Daemon::get(context.place).await?;
        if !self.yes && !is_meant()? {
            eprintln!("flannelctl: nothing was done");
            return Ok(ExitCode::FAILURE);
        }
        let left = daemon.tell(Request::Leave).await?;
        context.printer.print(&Answer(left))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn is_meant() -> anyhow::Result<bool> {
    eprint!("{WARNING} Leave the network? [y/N] ");
    io::stderr().flush().context("cannot ask back")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(Left);

impl Report for Answer {
    fn show(&self, page: &mut Page) {
        let Left { subnets, lease, claim } = &self.0;
        let subnet = subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        match lease {
            Withdrawn::Deleted => page.line(format!("deleted the lease of {subnet}")),
            Withdrawn::Kept => page.toned_line(
                Tone::Warning,
                &format!("kept the reservation of {subnet}: delete its key in etcd if it is not to be kept"),
            ),
        }
        match claim {
            Claimed::Deleted => page.line("deleted the claim to the public address"),
            Claimed::Expires => {
                page.toned_line(Tone::Warning, "the claim to the public address expires within a minute");
            }
        }
        page.line("flanneld ends; the datapath stays until `flannelctl down`");
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::lease::Withdrawn;
    use flannel_control::socket::{Claimed, Left};

    use super::Answer;
    use crate::output::Report as _;

    #[test]
    fn what_became_of_the_keys_is_told() {
        let left =
            |lease, claim| Answer(Left { subnets: vec!["10.5.39.0/24".parse().unwrap()], lease, claim });
        let deleted = left(Withdrawn::Deleted, Claimed::Deleted);
        assert!(deleted.text().starts_with("deleted the lease of 10.5.39.0/24\ndeleted the claim"));
        assert_eq!(
            serde_json::to_string(&deleted).unwrap(),
            r#"{"subnets":["10.5.39.0/24"],"lease":"deleted","claim":"deleted"}"#
        );
        let kept = left(Withdrawn::Kept, Claimed::Expires).text();
        assert!(kept.contains("kept the reservation") && kept.contains("within a minute"), "{kept}");
    }
}
