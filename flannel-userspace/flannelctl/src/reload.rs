//! `flannelctl reload`: has the running flanneld read its files for etcd again.

use std::process::ExitCode;

use clap::Args;
use flannel_control::socket::{Reloaded, Request};
use serde::Serialize;

use super::daemon::Daemon;
use super::output::{Page, Report};
use super::place::Context;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let reloaded = Daemon::get(context.place).await?.tell(Request::Reload).await?;
        context.printer.print(&Answer(reloaded))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(Reloaded);

impl Report for Answer {
    fn show(&self, page: &mut Page) {
        for file in &self.0.files {
            page.line(format!("read {}", file.display()));
        }
        page.line("connected to etcd anew");
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::Reloaded;

    use super::Answer;
    use crate::output::Report as _;

    #[test]
    fn files_are_named() {
        let answer = Answer(Reloaded { files: vec!["/etc/etcd/ca.pem".into()] });
        assert_eq!(answer.text(), "read /etc/etcd/ca.pem\nconnected to etcd anew\n");
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"files":["/etc/etcd/ca.pem"]}"#);
    }
}
