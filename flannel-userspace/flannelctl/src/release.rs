//! `flannelctl release`: has the running flanneld let the peers of a mass deletion go.

use std::process::ExitCode;

use clap::Args;
use flannel_control::socket::{Released, Request};
use serde::Serialize;

use super::daemon::Daemon;
use super::output::{Page, Report};
use super::place::Context;
use super::units;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let released = Daemon::get(context.place).await?.tell(Request::Release).await?;
        context.printer.print(&Answer(released))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(Released);

impl Report for Answer {
    fn show(&self, page: &mut Page) {
        match self.0.peers {
            0 => page.line("no peers are held"),
            peers => page.line(format!("let {} go", units::count(peers, "peer", "peers"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::Released;

    use super::Answer;
    use crate::output::Report as _;

    #[test]
    fn how_many_are_let_go() {
        let answer = |peers| Answer(Released { peers });
        assert_eq!(answer(0).text(), "no peers are held\n");
        assert_eq!(answer(1).text(), "let 1 peer go\n");
        assert_eq!(serde_json::to_string(&answer(12)).unwrap(), r#"{"peers":12}"#);
    }
}
