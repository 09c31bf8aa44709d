//! `flannelctl sysdump`: everything that helps to find a fault, in one archive.

mod archive;
mod secrets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use flannel_model::family::{Family, PerFamily};
use flannel_net::{Netlink, Objects};
use flannel_registry::etcd::Password;
use nix::sys::utsname::uname;
use procfs::process::Process;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use self::archive::Archive;
use self::secrets::Secrets;
use super::counters::Counts;
use super::daemon::Daemon;
use super::drops::Drops;
use super::exit::Outcome;
use super::features::Features;
use super::leases::Leases;
use super::maps::Dump;
use super::objects::Thing;
use super::output::{Report, SCHEMA_VERSION};
use super::page::Page;
use super::peers::Peers;
use super::place::{Context, StateFile};
use super::registry::RegistryFlags;
use super::status::Status;
use super::verify::Verification;

/// How long another program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Output of other programs, if installed, about what is not flannel's own.
const PROGRAMS: [(&str, &str); 11] = [
    ("ip-link.json", "ip -json -details -statistics link show"),
    ("ip-address.json", "ip -json address show"),
    ("ip-route.json", "ip -json route show table all"),
    ("ip-rule.json", "ip -json rule show"),
    ("ip-neighbour.json", "ip -json neighbour show"),
    ("bridge-fdb.json", "bridge -json fdb show"),
    ("tc-qdisc.json", "tc -json qdisc show"),
    ("nft.json", "nft --json list ruleset"),
    ("iptables-save.txt", "iptables-save"),
    ("bpftool-net.json", "bpftool --json net show"),
    ("bpftool-link.json", "bpftool --json link show"),
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File to write, which must not exist [default: flannelctl-sysdump-HOST-SECONDS.tar.gz].
    #[arg(short, long, value_name = "FILE.tar.gz")]
    write: Option<PathBuf>,
    #[command(flatten)]
    state_file: StateFile,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let host = uname()?.nodename().to_string_lossy().replace('/', "_");
        let name = format!("flannelctl-sysdump-{host}-{when}");
        let path = self.write.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
        let failed = || format!("cannot write {}: choose another file with -w", path.display());
        let found = Daemon::find(context.place).await.ok().flatten();
        let secrets = self.secrets(found.as_ref())?;
        let mut archive = Archive::create(&path, &name, when, secrets.clone()).with_context(failed)?;
        for (file, value) in self.answers(context, found.as_ref(), &secrets).await {
            archive.add(file, &serde_json::to_string_pretty(&value)?).with_context(failed)?;
        }
        for (file, command) in PROGRAMS {
            archive.add(file, &output_of(command).await).with_context(failed)?;
        }
        let (file, files) = archive.finish().with_context(failed)?;
        context.printer.print(&Written { file, files })
    }

    /// The passwords that this program and the daemon were given.
    fn secrets(&self, daemon: Option<&Daemon>) -> anyhow::Result<Secrets> {
        let none = Secrets::new()?;
        let of_daemon = daemon.and_then(|daemon| passwords_of(daemon.pid?, &none).ok()).unwrap_or_default();
        Ok(of_daemon
            .into_iter()
            .chain(self.registry.etcd.password())
            .fold(none, |known, next| known.knowing(&next)))
    }

    /// Answers of this program; errors with the reason.
    async fn answers(
        &self,
        context: &Context<'_>,
        found: Option<&Daemon>,
        secrets: &Secrets,
    ) -> Vec<(&'static str, Value)> {
        let place = context.place;
        let with_tables = || place.tables();
        let settings = found.and_then(Daemon::settings);
        vec![
            (
                "version.json",
                json!({
                    "flannelctl": env!("CARGO_PKG_VERSION"), "abi": flannel_common::ABI_VERSION,
                    "schema_version": SCHEMA_VERSION,
                }),
            ),
            ("status.json", value(Status::read(context).await)),
            ("peers.json", value(with_tables().and_then(|tables| Ok(Peers::read(&tables)?)))),
            (
                "counters.json",
                value(with_tables().and_then(|tables| Ok(Counts::read(&tables)?.counters(true)))),
            ),
            ("drops.json", value(with_tables().and_then(|tables| Ok(Drops::of(&Counts::read(&tables)?))))),
            ("maps.json", value(with_tables().and_then(|tables| Dump::read(&tables, None)))),
            ("features.json", value(Features::read(context).await)),
            ("leases.json", value(Leases::read(context, &self.state_file, &self.registry).await)),
            ("verify.json", value(Verification::read(context, &self.state_file, &self.registry).await)),
            ("kernel.json", value(kernel(context).await)),
            ("daemon.json", value(daemon(found, secrets))),
            ("state.json", value(state(&self.state_file.path(place, settings), secrets))),
        ]
    }
}

fn value<T: Serialize>(answer: anyhow::Result<T>) -> Value {
    let written = answer.and_then(|answer| Ok(serde_json::to_value(answer)?));
    written.unwrap_or_else(|error| json!({"error": format!("{error:#}")}))
}

/// Interfaces, addresses, and what is flannel's in the kernel's tables.
async fn kernel(context: &Context<'_>) -> anyhow::Result<Value> {
    let netlink = Netlink::open()?;
    let mut links = Vec::new();
    for link in netlink.links().await? {
        let filters = netlink.filters(link.index).await.unwrap_or_default();
        links.push(json!({
            "index": link.index, "name": link.name, "mtu": link.mtu, "mac": link.mac.to_string(),
            "up": link.is_up(), "kind": link.kind.to_string(),
            "filters": filters.iter().map(|filter| format!("{filter:?}")).collect::<Vec<_>>(),
        }));
    }
    let addresses = netlink.addresses(Family::V4).await?;
    let addresses = addresses.iter().map(|address| json!({"link": address.link, "address": address.network}));
    let node = context.place.tables().ok().and_then(|tables| tables.node().ok());
    let device = node.map(|node| node.device).filter(|device| *device != 0);
    let objects = Objects::new(netlink, PerFamily::only_v4(device)).list().await?;
    Ok(json!({
        "links": links,
        "addresses": addresses.collect::<Vec<_>>(),
        "objects": objects.iter().map(Thing::from).collect::<Vec<_>>(),
    }))
}

/// The running daemon, as it answers, and what it was told.
fn daemon(daemon: Option<&Daemon>, secrets: &Secrets) -> anyhow::Result<Value> {
    let daemon = daemon.context("no flanneld answers")?;
    Ok(json!({
        "pid": daemon.pid,
        "answer": daemon.told,
        "process": value(
            daemon.pid.context("its process cannot be seen from here").and_then(|pid| process(pid, secrets))
        ),
    }))
}

/// What a process was told. Another one may have its number by now, which is shown by its words.
fn process(pid: u32, secrets: &Secrets) -> anyhow::Result<Value> {
    let process = Process::new(i32::try_from(pid)?)?;
    let mut variables = BTreeMap::new();
    for (name, value) in variables_of(&process)? {
        let value = secrets.remove_from_variable(&name, &value);
        variables.insert(name, value);
    }
    Ok(json!({"words": secrets.remove_from_words(&process.cmdline()?), "variables": variables}))
}

/// The variables of a process that mean something to flanneld.
fn variables_of(process: &Process) -> anyhow::Result<impl Iterator<Item = (String, String)>> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = process.environ()?.into_iter().map(move |(name, value)| (text(name), text(value)));
    Ok(variables.filter(|(name, _)| name.starts_with("FLANNELD_")))
}

/// The passwords that a process was given, by flags, variables or a file.
fn passwords_of(pid: u32, secrets: &Secrets) -> anyhow::Result<Vec<String>> {
    let process = Process::new(i32::try_from(pid)?)?;
    let words = process.cmdline()?;
    let behind_sign = words.iter().filter_map(|word| word.split_once('='));
    let behind_name = words.iter().zip(words.iter().skip(1)).map(|(name, value)| (&**name, &**value));
    let variables: Vec<(String, String)> = variables_of(&process)?.collect();
    let given = behind_sign
        .chain(behind_name.filter(|(name, _)| name.starts_with('-')))
        .chain(variables.iter().map(|(name, value)| (&**name, &**value)));
    let is_file = |name: &str| name.to_ascii_lowercase().replace('_', "-").ends_with("password-file");
    Ok(given
        .filter_map(|(name, value)| match name {
            name if secrets.is_name(name) => Some(value.to_owned()),
            name if is_file(name) => Password::File(value.into()).read().ok(),
            _ => None,
        })
        .collect())
}

fn state(path: &std::path::Path, secrets: &Secrets) -> anyhow::Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut state: Value = serde_json::from_slice(&text)?;
    // A text within a text, in which no quote is one.
    if let Some(Value::String(config)) = state.get_mut("config") {
        *config = secrets.remove(config);
    }
    Ok(state)
}

/// What a program prints, or why it prints nothing.
async fn output_of(command: &str) -> String {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap_or_default());
    program.args(words).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, program.output()).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Ok(output)) => format!("`{command}` failed: {}", String::from_utf8_lossy(&output.stderr)),
        Ok(Err(error)) => format!("`{command}` cannot be run: {error}"),
        Err(_) => format!("`{command}` did not end within {} s", PATIENCE.as_secs()),
    }
}

/// The archive.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    /// What is in it.
    files: Vec<String>,
}

impl Report for Written {
    fn show(&self, page: &mut Page) {
        page.line(format!("wrote {}, {} files", self.file.display(), self.files.len()));
        page.line(
            "Passwords, keys and credentials in URLs are removed; addresses and names of hosts are not.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Written, output_of};
    use crate::output::Report as _;

    #[test]
    fn what_was_written() {
        let written = Written { file: "/tmp/a.tar.gz".into(), files: vec!["status.json".to_owned()] };
        assert!(written.text().starts_with("wrote /tmp/a.tar.gz, 1 files\n"));
        assert_eq!(
            serde_json::to_string(&written).unwrap(),
            r#"{"file":"/tmp/a.tar.gz","files":["status.json"]}"#
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        assert_eq!(output_of("echo a b").await, "a b\n");
        assert!(output_of("flannelctl-nothing x").await.contains("cannot be run"));
        assert!(output_of("false").await.contains("failed"));
    }
}
