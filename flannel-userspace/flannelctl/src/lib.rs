//! `flannelctl`: what maps and kernel say, with or without a daemon. One file for each command.
//!
//! Commands, tables and texts live here. Nothing that a running daemon needs does.

mod cloud;
mod counters;
mod daemon;
mod down;
mod drops;
mod exit;
mod explain;
mod features;
mod generate;
mod leases;
mod leave;
mod leftovers;
mod log_level;
mod maps;
mod nodes;
mod objects;
mod orders;
mod output;
mod page;
mod peers;
mod place;
mod programless;
mod registry;
mod remedy;
mod running;
mod status;
mod sysdump;
mod table;
mod top;
mod trace;
mod units;
mod verify;
mod wanted;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flannel_control::socket::{Released, Reloaded, Request};
use flannel_datapath::hooks;
use tokio::runtime::Builder;

use self::exit::{Code, Outcome};
use self::output::{Format, Printer};
use self::place::{Context, Place};

/// Shows what flanneld's datapath does, and tells a running flanneld what to do. It reads the pinned BPF maps and the
/// kernel; to show them the daemon need not run.
///
/// Exit codes: 0 done, and as it should be; 1 it failed, or cannot be told; 2 bad usage; 3 not as it should be: `verify`
/// finds a difference, `status` a program that is not attached or a daemon that is not ready, `features` a requirement
/// that is not met, `explain` a program that is not in its place, `peers` no such peer, or nothing that leads to it.
#[derive(Debug, Parser)]
#[command(name = "flannelctl", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// This host's subnet, backend and devices, which programs are attached, and whether flanneld is ready.
    Status(status::Arguments),
    /// The peers, and what was forwarded to and from each; or everything about one.
    Peers(peers::Arguments),
    /// The leases last known to this host, or those in etcd, and which of them are refused and why.
    Leases(leases::Arguments),
    /// Packets and bytes by hook and reason: forwarded, passed on, dropped.
    Counters(counters::Arguments),
    /// Packets that were dropped, why, and what to do about it.
    Drops(drops::Arguments),
    /// Peers by rate, drops, the share of the bypass and the daemon's conditions, live on a terminal.
    Top(top::Arguments),
    /// Single packets at the programs' hooks, and their verdicts. Ends with Ctrl-C.
    Trace(trace::Arguments),
    /// Writes the first 256 bytes of each tunnel packet to a file for Wireshark. Ends with Ctrl-C.
    Capture(trace::Capture),
    /// The entries of the BPF maps.
    Maps(maps::Arguments),
    /// What would happen to a packet, by the code of the kernel programs over the present maps. Nothing is sent.
    Explain(explain::Arguments),
    /// What the kernel and the network card offer, what is used of it, and why.
    Features(features::Arguments),
    /// Compares maps and kernel with what the leases ask for. Exit code 3 if something differs.
    Verify(verify::Arguments),
    /// Writes everything that helps to find a fault to one archive, without passwords and keys.
    Sysdump(sysdump::Arguments),
    /// Shows how much flanneld logs, or has it log from another level on until its next start.
    LogLevel(log_level::Arguments),
    /// Has flanneld read its TLS and password files for etcd again and connect anew. If etcd does not answer with what
    /// they say now, nothing is changed.
    Reload,
    /// Has flanneld remove the peers at once that it holds after a mass deletion of leases.
    Release,
    /// Takes this host out of the network: deletes its lease, unless that is a reservation, and its claim to the public
    /// address, and ends flanneld. The datapath stays until `flannelctl down`.
    Leave(leave::Arguments),
    /// Removes what flanneld made on this host: programs, maps, device, routes and files. Stop flanneld first.
    /// The lease stays in etcd until it expires.
    Down(down::Arguments),
    /// Prints completions for a shell.
    Completions(generate::Completions),
    /// Prints a manual page.
    Man(generate::Man),
}

impl Cli {
    /// Runs the command, and prints the answer, or why there is none.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let printer = Printer::new(self.output);
        match self.answer(printer) {
            Ok(outcome) => outcome.into(),
            Err(error) if output::is_unread(&error) => ExitCode::SUCCESS,
            Err(error) => {
                printer.print_error(&error);
                Code::of(&error).into()
            }
        }
    }

    fn answer(&self, printer: Printer) -> anyhow::Result<Outcome> {
        let context = Context { place: &self.place, printer };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.verb.run(&context))
    }
}

impl Verb {
    async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        match self {
            Self::Status(status) => status.run(context).await,
            Self::Peers(peers) => peers.run(context).await,
            Self::Leases(leases) => leases.run(context).await,
            Self::Counters(counters) => counters.run(context).await,
            Self::Drops(drops) => drops.run(context).await,
            Self::Top(top) => top.run(context).await,
            Self::Trace(trace) => trace.run(context).await,
            Self::Capture(capture) => capture.run(context).await,
            Self::Maps(maps) => maps.run(context).await,
            Self::Explain(explain) => explain.run(context).await,
            Self::Features(features) => features.run(context).await,
            Self::Verify(verify) => verify.run(context).await,
            Self::Sysdump(sysdump) => sysdump.run(context).await,
            Self::LogLevel(log_level) => log_level.run(context).await,
            Self::Reload => orders::give::<Reloaded>(context, Request::Reload).await,
            Self::Release => orders::give::<Released>(context, Request::Release).await,
            Self::Leave(leave) => leave.run(context).await,
            Self::Down(down) => down.run(context).await,
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        }
    }
}
