//! `flannelctl reload` and `flannelctl release`: what the running flanneld is told in one word.

use flannel_control::socket::{Released, Reloaded, Request};
use serde::de::DeserializeOwned;

use super::daemon::Daemon;
use super::exit::Outcome;
use super::output::Report;
use super::page::Page;
use super::place::Context;
use super::units;

/// Tells the running daemon to do something, and prints what came of it.
///
/// # Errors
/// None runs, or it does not do it.
pub(super) async fn give<A: DeserializeOwned + Report>(
    context: &Context<'_>,
    request: Request,
) -> anyhow::Result<Outcome> {
    let answer: A = Daemon::get(context.place).await?.tell(request).await?;
    context.printer.print(&answer)
}

impl Report for Reloaded {
    fn show(&self, page: &mut Page) {
        for file in &self.files {
            page.line(format!("read {}", file.display()));
        }
        page.line("connected to etcd anew");
    }
}

impl Report for Released {
    fn show(&self, page: &mut Page) {
        match self.peers {
            0 => page.line("no peers are held"),
            peers => page.line(format!("let {} go", units::count(peers, "peer", "peers"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::{Released, Reloaded};

    use crate::output::Report as _;

    #[test]
    fn files_are_named() {
        let answer = Reloaded { files: vec!["/etc/etcd/ca.pem".into()] };
        assert_eq!(answer.text(), "read /etc/etcd/ca.pem\nconnected to etcd anew\n");
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"files":["/etc/etcd/ca.pem"]}"#);
    }

    #[test]
    fn how_many_are_let_go() {
        assert_eq!(Released { peers: 0 }.text(), "no peers are held\n");
        assert_eq!(Released { peers: 1 }.text(), "let 1 peer go\n");
        assert_eq!(serde_json::to_string(&Released { peers: 12 }).unwrap(), r#"{"peers":12}"#);
    }
}
