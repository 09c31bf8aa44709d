//! `flannelctl explain`: what would become of a packet, by the code of the kernel programs over the present maps.

mod packet;

use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::Args;
use flannel_common::maps::{Node, Peer};
use flannel_common::{Hook, Reason, Verdict};
use flannel_ebpf::udp::State;
use serde::Serialize;

use self::packet::{Maps, Outer};
use super::hooks::{format, hooks};
use super::output::{Page, Report, Tone, cell, toned};
use super::place::Context;
use super::status::network;
use super::{objects, remedy};
use crate::datapath::Format;
use crate::kernel::Netlink;
use crate::kernel::route::Route;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sender: a pod or host, of this host or another.
    #[arg(value_name = "SRC")]
    source: Ipv4Addr,
    /// Receiver.
    #[arg(value_name = "DST")]
    destination: Ipv4Addr,
    /// The host that sends a packet from elsewhere [default: the peer that leases SRC's subnet].
    #[arg(long, value_name = "IP")]
    outer_source: Option<Ipv4Addr>,
    /// Bytes of the packet with its IP header.
    #[arg(long, default_value_t = 84, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(20..))]
    size: u16,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let tables = context.place.tables()?;
        let node = tables.node()?;
        let walk = Walk { node, maps: Maps::read(&tables)?, netlink: Netlink::open()?, asked: self };
        let mut explanation = walk.explain().await?;
        if let Some(program) = explanation.program {
            let hooks = hooks(&walk.netlink, &context.place.pin_dir(), &node).await?;
            explanation.program_attached =
                Some(hooks.iter().any(|hook| hook.program == program && hook.attached));
        }
        context.printer.print(&explanation)?;
        Ok(ExitCode::SUCCESS)
    }

    const fn packet(&self) -> (Ipv4Addr, Ipv4Addr, u16) {
        (self.source, self.destination, self.size)
    }
}

/// What would become of the packet.
#[derive(Debug, Serialize)]
struct Explanation {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// `out` of this host, `in`to it, or `local`.
    direction: &'static str,
    /// The route by which this host sends it on.
    route: Option<String>,
    /// The entry of PEERS that decides.
    entry: Option<Entry>,
    /// `vxlan`, `udp` or `none`.
    encapsulation: &'static str,
    /// Whether it is cut and finished first, for a peer that has not shown of late that it takes packets whole.
    segmented: bool,
    outer: Option<Outer>,
    /// The route of the outer packet.
    outer_route: Option<String>,
    mtu: Option<Mtu>,
    /// The program that decides, if one does.
    program: Option<&'static str>,
    program_attached: Option<bool>,
    hook: Option<&'static str>,
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    /// What that means.
    help: String,
    /// What to do about it, where it is dropped.
    remedy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Entry {
    subnet: Ipv4Addr,
    public_ip: Ipv4Addr,
    vtep_mac: String,
    path: &'static str,
}

impl From<(Ipv4Addr, Peer)> for Entry {
    fn from((subnet, entry): (Ipv4Addr, Peer)) -> Self {
        let path = if entry.direct != 0 { "direct" } else { "tunnel" };
        Self { subnet, public_ip: entry.public_ip.into(), vtep_mac: entry.vtep_mac.to_string(), path }
    }
}

#[derive(Debug, Serialize)]
struct Mtu {
    /// Largest packet of the device it leaves by, in bytes.
    device: u32,
    /// Bytes of the packet.
    packet: u16,
    fits: bool,
}

struct Walk<'a> {
    node: Node,
    maps: Maps,
    netlink: Netlink,
    asked: &'a Arguments,
}

impl Walk<'_> {
    async fn explain(&self) -> anyhow::Result<Explanation> {
        let is_ours =
            |address| network(self.node.subnet, self.node.netmask).is_some_and(|own| own.contains(address));
        match (is_ours(self.asked.source), is_ours(self.asked.destination)) {
            (true, true) => {
                Ok(self.blank("local", "Both are of this host's subnet: it never leaves the host."))
            }
            (false, true) => Ok(self.arrive()),
            _ => self.leave().await,
        }
    }

    fn blank(&self, direction: &'static str, help: &str) -> Explanation {
        Explanation {
            source: self.asked.source,
            destination: self.asked.destination,
            direction,
            route: None,
            entry: None,
            encapsulation: "none",
            segmented: false,
            outer: None,
            outer_route: None,
            mtu: None,
            program: None,
            program_attached: None,
            hook: None,
            verdict: None,
            reason: None,
            help: help.to_owned(),
            remedy: None,
        }
    }

    async fn leave(&self) -> anyhow::Result<Explanation> {
        let entry = self.maps.entry_of(self.asked.destination, self.node.netmask);
        let mut explanation = Explanation { entry: entry.map(Entry::from), ..self.blank("out", "") };
        let route = match self.netlink.route_to(self.asked.destination.into()).await {
            Ok(Some(route)) => route,
            Ok(None) => {
                explanation.help = "This host has no route to the destination.".to_owned();
                return Ok(explanation);
            }
            // The kernel's answer for a blackhole route.
            Err(error) => {
                explanation.help = format!("The kernel refuses to route it: {error}.");
                return Ok(explanation);
            }
        };
        explanation.route = Some(words(self.asked.destination, &route));
        explanation.mtu = self.mtu(route.device).await?;
        let device = route.device.filter(|device| *device == self.node.device && *device != 0);
        let (Some(format), Some(_)) = (format(&self.node), device) else {
            explanation.help =
                "The kernel sends it as it is, by that route; no program of flannel's sees it.".to_owned();
            return Ok(explanation);
        };
        let send = |state| packet::send(format, &self.maps, &self.node, state, self.asked.packet());
        let mut sent = send(State::AsSent);
        explanation.program = Some(if is_udp(format) { "udp_encap" } else { "vxlan_encap" });
        explanation.judge(Hook::Encap, sent.as_ref().err().copied().unwrap_or(Reason::Forwarded));
        if sent == Err(Reason::ToSegment) {
            sent = send(State::Segmented);
            explanation.program = Some("udp_segmented");
            explanation.segmented = true;
            explanation.judge(Hook::Segmented, sent.as_ref().err().copied().unwrap_or(Reason::Forwarded));
        }
        if let Ok(outer) = sent {
            let route = self.netlink.route_to(outer.destination.into()).await.ok().flatten();
            explanation.outer_route = Some(match route {
                Some(route) => words(outer.destination, &route),
                None => format!("no route to {}", outer.destination),
            });
            explanation.encapsulation = name(format);
            explanation.outer = Some(outer);
        }
        Ok(explanation)
    }

    fn arrive(&self) -> Explanation {
        let entry = self.maps.entry_of(self.asked.source, self.node.netmask);
        let mut explanation = Explanation { entry: entry.map(Entry::from), ..self.blank("in", "") };
        let is_direct = entry.is_some_and(|(_, entry)| entry.direct != 0);
        let Some(format) = format(&self.node).filter(|_| !is_direct) else {
            explanation.help =
                "It comes as it is, by the underlay; no program of flannel's sees it, and no guard."
                    .to_owned();
            return explanation;
        };
        // Who is no peer sends from its own address.
        let of_peer = entry.map(|(_, entry)| Ipv4Addr::from(entry.public_ip));
        let outer_source = self.asked.outer_source.or(of_peer).unwrap_or(self.asked.source);
        explanation.program = Some(if is_udp(format) { "udp_decap" } else { "vxlan_decap" });
        explanation.encapsulation = name(format);
        match packet::receive(format, &self.maps, &self.node, outer_source, self.asked.packet()) {
            Ok((outer, arrived)) => {
                explanation.outer = Some(outer);
                explanation.judge(Hook::Decap, arrived.err().unwrap_or(Reason::Forwarded));
            }
            Err(reason) => explanation.judge(Hook::Decap, reason),
        }
        explanation
    }

    async fn mtu(&self, device: Option<u32>) -> anyhow::Result<Option<Mtu>> {
        let Some(device) = device else { return Ok(None) };
        let link = self.netlink.link_by_index(device).await?;
        let packet = self.asked.size;
        Ok(link.map(|link| Mtu { device: link.mtu, packet, fits: u32::from(packet) <= link.mtu }))
    }
}

impl Explanation {
    fn judge(&mut self, hook: Hook, reason: Reason) {
        self.hook = Some(hook.label());
        self.verdict = Some(reason.verdict().label());
        self.reason = Some(reason.label());
        self.help = reason.help().to_owned();
        self.remedy = remedy::of(reason).filter(|_| reason.verdict() == Verdict::Drop);
    }
}

const fn is_udp(format: Format) -> bool {
    matches!(format, Format::Udp { .. })
}

const fn name(format: Format) -> &'static str {
    if is_udp(format) { "udp" } else { "vxlan" }
}

/// A route in iproute2's words.
fn words(destination: Ipv4Addr, route: &Route) -> String {
    let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let device = route.device.map(|device| format!(" dev {}", objects::name(device))).unwrap_or_default();
    format!("{destination}{via}{device}")
}

impl Report for Explanation {
    fn show(&self, page: &mut Page) {
        let mut pairs =
            vec![("packet", cell(format!("{} → {}, {}", self.source, self.destination, self.way())))];
        pairs.extend(self.route.as_ref().map(|route| ("route", cell(route))));
        if let Some(Entry { subnet, public_ip, vtep_mac, path }) = &self.entry {
            pairs.push(("entry", cell(format!("{subnet} at {public_ip}, VTEP {vtep_mac}, by {path}"))));
        }
        let segmented = if self.segmented { ", by the segmenter" } else { "" };
        pairs.push(("tunnel", cell(format!("{}{segmented}", self.encapsulation))));
        if let Some(outer) = &self.outer {
            let vni = outer.vni.map(|vni| format!(", VNI {vni}")).unwrap_or_default();
            let mac = outer.vtep_mac.as_ref().map(|mac| format!(", VTEP {mac}")).unwrap_or_default();
            let Outer { source, destination, port, bytes, .. } = outer;
            pairs.push((
                "outer",
                cell(format!("{source} → {destination} UDP port {port}{vni}{mac}, {bytes} bytes")),
            ));
        }
        if let Some(route) = &self.outer_route {
            pairs.push(("underlay", cell(route)));
        }
        if let Some(Mtu { device, packet, fits }) = &self.mtu {
            let fits = if *fits { "fits" } else { "is too long: it is cut, or its sender told to send less" };
            pairs.push(("MTU", cell(format!("{device}; a packet of {packet} bytes {fits}"))));
        }
        if let (Some(hook), Some(verdict), Some(reason)) = (self.hook, self.verdict, self.reason) {
            let tone = if verdict == Verdict::Drop.label() { Tone::Bad } else { Tone::Good };
            pairs.push(("verdict", toned(tone, format!("{verdict} at {hook}: {reason}"))));
        }
        page.pairs(pairs);
        page.line(&self.help);
        if let Some(remedy) = self.remedy {
            page.line(remedy);
        }
        if let (Some(program), Some(false)) = (self.program, self.program_attached) {
            page.toned_line(
                Tone::Bad,
                &format!(
                    "But {program} is not attached now, so that it decides nothing: see `flannelctl verify`."
                ),
            );
        }
    }
}

impl Explanation {
    fn way(&self) -> &'static str {
        match self.direction {
            "in" => "into this host",
            "out" => "out of this host",
            _ => "within this host",
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::{Hook, Reason};

    use super::{Entry, Explanation, Mtu, Outer};
    use crate::cli::flannelctl::output::Report as _;

    fn explanation(reason: Reason) -> Explanation {
        let mut explanation = Explanation {
            source: [10, 5, 1, 2].into(),
            destination: [10, 5, 2, 3].into(),
            direction: "out",
            route: Some("10.5.2.3 via 10.5.2.0 dev flannel.1".to_owned()),
            entry: Some(Entry {
                subnet: [10, 5, 2, 0].into(),
                public_ip: [192, 168, 77, 12].into(),
                vtep_mac: "02:00:00:00:00:02".to_owned(),
                path: "tunnel",
            }),
            encapsulation: "vxlan",
            segmented: false,
            outer: Some(Outer {
                source: [192, 168, 77, 11].into(),
                destination: [192, 168, 77, 12].into(),
                port: 8472,
                vni: Some(1),
                vtep_mac: Some("02:00:00:00:00:02".to_owned()),
                bytes: 134,
            }),
            outer_route: Some("192.168.77.12 dev eth0".to_owned()),
            mtu: Some(Mtu { device: 1450, packet: 84, fits: true }),
            program: Some("vxlan_encap"),
            program_attached: Some(true),
            hook: None,
            verdict: None,
            reason: None,
            help: String::new(),
            remedy: None,
        };
        explanation.judge(Hook::Encap, reason);
        explanation
    }

    #[test]
    fn table() {
        assert_eq!(
            explanation(Reason::Forwarded).text(),
            " packet    10.5.1.2 → 10.5.2.3, out of this host
 route     10.5.2.3 via 10.5.2.0 dev flannel.1
 entry     10.5.2.0 at 192.168.77.12, VTEP 02:00:00:00:00:02, by tunnel
 tunnel    vxlan
 outer     192.168.77.11 → 192.168.77.12 UDP port 8472, VNI 1, VTEP 02:00:00:00:00:02, 134 bytes
 underlay  192.168.77.12 dev eth0
 MTU       1450; a packet of 84 bytes fits
 verdict   forward at encap: forwarded
The packet was forwarded by the program.
"
        );
        let lost = Explanation { program_attached: Some(false), ..explanation(Reason::NoPeer) };
        assert!(lost.text().contains("flannelctl leases"), "{}", lost.text());
        assert!(lost.text().ends_with("see `flannelctl verify`.\n"), "{}", lost.text());
    }

    #[test]
    fn json() {
        let value = serde_json::to_value(explanation(Reason::Forwarded)).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "destination",
                "direction",
                "encapsulation",
                "entry",
                "help",
                "hook",
                "mtu",
                "outer",
                "outer_route",
                "program",
                "program_attached",
                "reason",
                "remedy",
                "route",
                "segmented",
                "source",
                "verdict"
            ]
        );
        assert_eq!(value["outer"]["destination"], "192.168.77.12");
    }
}
