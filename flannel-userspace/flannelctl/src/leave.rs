//! `flannelctl leave`: takes this host out of the network for good.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use flannel_control::lease::Withdrawn;
use flannel_control::socket::{Claimed, Left, Request};

use super::daemon::Daemon;
use super::exit::{Code, Failure, Outcome};
use super::orders;
use super::output::Report;
use super::page::{Page, Tone};
use super::place::Context;

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
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        if !self.yes {
            if !io::stdin().is_terminal() {
                let message = format!("{WARNING} Say --yes where nobody can be asked whether that is meant.");
                return Err(Failure::new(Code::NoTerminal, message).into());
            }
            // Who has no daemon is not asked.
            Daemon::get(context.place).await?;
            if !is_meant()? {
                return Err(Failure::new(Code::NotConfirmed, "nothing was done").into());
            }
        }
        orders::give::<Left>(context, Request::Leave).await
    }
}

fn is_meant() -> anyhow::Result<bool> {
    eprint!("{WARNING} Leave the network? [y/N] ");
    io::stderr().flush().context("cannot ask back")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Report for Left {
    fn show(&self, page: &mut Page) {
        let Self { subnets, lease, claim } = self;
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

    use crate::output::Report as _;

    #[test]
    fn what_became_of_the_keys_is_told() {
        let left = |lease, claim| Left { subnets: vec!["10.5.39.0/24".parse().unwrap()], lease, claim };
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
