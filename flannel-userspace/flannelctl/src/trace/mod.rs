//! `flannelctl trace`: single packets at the programs' hooks, and their verdicts.

mod capture;
pub(crate) mod packet;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use flannel_common::flow::Bypass;
use flannel_common::maps::Node;
use flannel_common::trace::{Event, TraceFilter};
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_datapath::{PeerEntry, Tables, TraceSession, time_of_day};
use nix::net::if_::if_indextoname;
use serde::Serialize;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, sleep_until};

use self::packet::{Headers, Packet};
use super::output::{Page, Report, Tone};
use super::peers::Wanted;
use super::place::Context;
pub(super) use capture::Arguments as Capture;

/// When to end.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct End {
    /// End after so many packets.
    #[arg(short, long, value_name = "NUMBER")]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(short, long, value_name = "SECONDS")]
    duration: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only at these hooks, separated by commas [default: all].
    #[arg(long, value_delimiter = ',', value_parser = hook, value_name = "HOOKS")]
    hook: Vec<Hook>,
    /// Only packets with these verdicts, separated by commas [default: all].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VERDICTS")]
    verdict: Vec<VerdictName>,
    /// Only packets with these reasons, separated by commas; `flannelctl counters --all` lists them.
    #[arg(long, value_delimiter = ',', value_parser = reason, value_name = "REASONS")]
    reason: Vec<Reason>,
    /// Only packets from or to this address, inside or outside the tunnel.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<Ipv4Addr>,
    /// Only packets from or to this port, inside or outside the tunnel.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Only packets to or from this peer: its subnet, an address in it, its public address or a name for it.
    #[arg(long, value_name = "NAME|SUBNET|IP")]
    peer: Option<String>,
    /// Only one of so many packets.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    every: u32,
    #[command(flatten)]
    end: End,
}

/// A [`Verdict`] by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerdictName {
    Forward,
    Pass,
    Drop,
}

fn hook(label: &str) -> Result<Hook, String> {
    let labels: Vec<_> = Hook::ALL.iter().map(|hook| hook.label()).collect();
    let hook = Hook::ALL.iter().find(|hook| hook.label() == label);
    hook.copied().ok_or_else(|| format!("the hooks are {}", labels.join(", ")))
}

fn reason(label: &str) -> Result<Reason, String> {
    let reason = Reason::ALL.iter().find(|reason| reason.label() == label);
    reason.copied().ok_or_else(|| "`flannelctl counters --all` lists the reasons".to_owned())
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let tables = context.place.tables()?;
        let host = Host::read(&tables)?;
        let peer = self.peer.as_deref().map(|who| host.peer(who)).transpose()?;
        let mut stream = Stream::open(context, self.filter(), self.end)?;
        while let Some(event) = stream.next().await? {
            let seen = Seen::of(&event, &host);
            let is_of_peer = peer.is_none_or(|peer| seen.peer == Some(peer));
            if is_of_peer && self.is_asked(&seen) {
                context.printer.print_next(&seen)?;
                stream.counted();
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn filter(&self) -> TraceFilter {
        let is_asked = |reason: &&Reason| {
            (self.reason.is_empty() || self.reason.contains(reason))
                && (self.verdict.is_empty() || self.verdict.iter().any(|name| name.is(reason.verdict())))
        };
        let hooks = if self.hook.is_empty() { Hook::ALL } else { &self.hook };
        TraceFilter {
            reasons: Reason::ALL.iter().filter(is_asked).fold(0, |bits, reason| bits | 1 << reason.number()),
            hooks: hooks.iter().fold(0, |bits, hook| bits | 1 << *hook as u32),
            every: self.every,
            ..TraceFilter::default()
        }
    }

    fn is_asked(&self, seen: &Seen) -> bool {
        let headers = || seen.packet.outer.iter().chain(&seen.packet.inner);
        self.host.is_none_or(|host| headers().any(|headers| headers.has(host)))
            && self.port.is_none_or(|port| headers().any(|headers| headers.has_port(port)))
    }
}

impl VerdictName {
    const fn is(self, verdict: Verdict) -> bool {
        matches!(
            (self, verdict),
            (Self::Forward, Verdict::Forward) | (Self::Pass, Verdict::Pass) | (Self::Drop, Verdict::Drop)
        )
    }
}

/// Events until a limit is reached.
struct Stream {
    session: TraceSession,
    left: Option<u64>,
    until: Option<Instant>,
}

impl Stream {
    fn open(context: &Context<'_>, filter: TraceFilter, end: End) -> anyhow::Result<Self> {
        let session = TraceSession::ask(&context.place.pin_dir(), filter)?;
        // `None` for a time that never comes.
        let until = end.duration.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Ok(Self { session, left: end.count, until })
    }

    /// The next one; nothing when it is time to end.
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let over = async {
            match self.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.session.next() => Ok(Some(event?)),
            () = over => Ok(None),
            interrupted = ctrl_c() => Ok(interrupted.map(|()| None)?),
        }
    }

    /// Counts a packet that was shown.
    const fn counted(&mut self) {
        if let Some(left) = self.left {
            self.left = Some(left.saturating_sub(1));
        }
    }
}

/// What identifies peers and pods.
struct Host {
    node: Node,
    peers: Vec<(Ipv4Addr, PeerEntry)>,
}

impl Host {
    fn read(tables: &Tables) -> anyhow::Result<Self> {
        let node = tables.node()?;
        if node.port == 0 && node.bypass == Bypass::Off as u32 {
            bail!(
                "this network has no tunnel, and nothing bypasses the stack, so that no program sees its packets: use tcpdump"
            );
        }
        Ok(Self { node, peers: tables.peers()?.into_iter().collect() })
    }

    /// The public address of the peer that `who` stands for.
    fn peer(&self, who: &str) -> anyhow::Result<Ipv4Addr> {
        let wanted = Wanted::parse(who)?;
        let found = self.peers.iter().find(|(subnet, peer)| {
            wanted.matches(super::status::network((*subnet).into(), self.node.netmask), peer.public_ip)
        });
        match found {
            Some((_, peer)) => Ok(peer.public_ip),
            None => bail!("no peer is {who}: `flannelctl peers` lists all"),
        }
    }

    /// The public address of the peer a packet is from or to, by the outer headers or else by the inner ones.
    fn peer_of(&self, packet: &Packet) -> Option<Ipv4Addr> {
        let ends = |headers: &Headers| [headers.source, headers.destination];
        let by_public_ip = |address: IpAddr| self.peers.iter().find(|(_, peer)| address == peer.public_ip);
        let by_subnet = |address: IpAddr| {
            let IpAddr::V4(address) = address else { return None };
            let subnet: Ipv4Addr = Ip4::from(address).masked(self.node.netmask).into();
            self.peers.iter().find(|(of, _)| *of == subnet)
        };
        let outer = packet.outer.iter().flat_map(ends).find_map(by_public_ip);
        let inner = || packet.inner.iter().flat_map(ends).find_map(by_subnet);
        outer.or_else(inner).map(|(_, peer)| peer.public_ip)
    }

    /// This host's pod at one end of the packet.
    fn pod_of(&self, packet: &Packet) -> Option<IpAddr> {
        let is_local = |address: &IpAddr| match address {
            IpAddr::V4(address) => Ip4::from(*address).masked(self.node.netmask) == self.node.subnet,
            IpAddr::V6(_) => false,
        };
        packet.inner.iter().flat_map(|headers| [headers.source, headers.destination]).find(is_local)
    }
}

/// A packet at a hook.
#[derive(Debug, Serialize)]
struct Seen {
    /// Seconds since 1970.
    time: f64,
    hook: Option<&'static str>,
    /// `forward`, `pass`, `drop`; `None` for a packet whose verdict is not decided.
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    interface: String,
    /// Length with the Ethernet header, at the time of the verdict.
    bytes: u32,
    /// Segments a super-packet stands for.
    segments: u32,
    #[serde(flatten)]
    packet: Packet,
    peer: Option<Ipv4Addr>,
    pod: Option<IpAddr>,
}

impl Seen {
    fn of(event: &Event, host: &Host) -> Self {
        let reason = Reason::ALL.iter().find(|reason| reason.number() == event.reason);
        let bytes = event.bytes.get(..event.captured as usize).unwrap_or_default();
        let packet = Packet::read(bytes, &host.node);
        Self {
            time: time_of_day(event.at).unwrap_or_default().as_secs_f64(),
            hook: Hook::ALL.iter().find(|hook| **hook as u32 == event.hook).map(|hook| hook.label()),
            verdict: reason.map(|reason| reason.verdict().label()),
            reason: reason.map(|reason| reason.label()),
            interface: interface(event.interface),
            bytes: event.len,
            segments: event.segments.max(1),
            peer: host.peer_of(&packet),
            pod: host.pod_of(&packet),
            packet,
        }
    }
}

fn interface(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("interface {index}"))
}

impl Report for Seen {
    fn show(&self, page: &mut Page) {
        let tone = match self.verdict {
            Some("drop") => Tone::Bad,
            Some("forward") => Tone::Good,
            _ => Tone::Aside,
        };
        let word = |word: Option<&'static str>| word.unwrap_or("?");
        let mut line = format!(
            "{:.6} {} {} {} {}",
            self.time,
            word(self.hook),
            self.interface,
            word(self.verdict),
            word(self.reason)
        );
        match (&self.packet.outer, &self.packet.inner) {
            (Some(outer), Some(inner)) => line.push_str(&format!(" {inner} in {outer}")),
            (Some(outer), None) => line.push_str(&format!(" {outer}")),
            (None, Some(inner)) => line.push_str(&format!(" {inner}")),
            (None, None) => line.push_str(" no IP"),
        }
        line.push_str(&format!(" {} bytes", self.bytes));
        if self.segments > 1 {
            line.push_str(&format!(" in {} segments", self.segments));
        }
        if let Some(peer) = self.peer {
            line.push_str(&format!(" peer {peer}"));
        }
        page.toned_line(tone, &line);
    }
}

#[cfg(test)]
mod tests;
