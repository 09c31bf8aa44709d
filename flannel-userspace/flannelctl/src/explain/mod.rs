//! `flannelctl explain`: what would become of a packet, by the code of the kernel programs over the present maps.

mod answer;
mod end;
mod packet;

use std::net::Ipv4Addr;

use clap::Args;
use flannel_common::maps::Node;
use flannel_common::{Hook, Reason};
use flannel_datapath::Format;
use flannel_ebpf::udp::State;
use flannel_model::backend::Kind;
use flannel_net::Netlink;
use flannel_net::route::{Route, TunnelFlow};

use self::answer::{Entry, Explanation, Mtu};
use self::end::End;
use self::packet::Maps;
use super::exit::Outcome;
use super::hooks::{format, hooks};
use super::objects;
use super::place::Context;
use super::registry::AccessFlags;
use super::status::network;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sender: the address of a pod or host, of this host or another, or in Kubernetes a pod as namespace/name.
    #[arg(value_name = "SRC")]
    source: End,
    /// Receiver, in the same way.
    #[arg(value_name = "DST")]
    destination: End,
    /// The host that sends a packet from elsewhere [default: the peer that leases SRC's subnet].
    #[arg(long, value_name = "IP")]
    outer_source: Option<Ipv4Addr>,
    /// Bytes of the packet with its IP header.
    #[arg(long, default_value_t = 84, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(20..))]
    size: u16,
    #[command(flatten)]
    access: AccessFlags,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let [source, destination] =
            [self.source.address(&self.access).await?, self.destination.address(&self.access).await?];
        let asked = Asked { source, destination, outer_source: self.outer_source, size: self.size };
        let tables = context.place.tables()?;
        let node = tables.node()?;
        let walk = Walk { node, maps: Maps::read(&tables)?, netlink: Netlink::open()?, asked };
        let mut explanation = walk.explain().await?;
        if let Some(program) = explanation.program {
            let hooks = hooks(&walk.netlink, &context.place.pin_dir(), &node).await?;
            explanation.program_attached =
                Some(hooks.iter().any(|hook| hook.program == program && hook.attached));
        }
        context.printer.print(&explanation)
    }
}

/// The packet that is asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    outer_source: Option<Ipv4Addr>,
    size: u16,
}

impl Asked {
    const fn packet(&self) -> (Ipv4Addr, Ipv4Addr, u16) {
        (self.source, self.destination, self.size)
    }
}

struct Walk {
    node: Node,
    maps: Maps,
    netlink: Netlink,
    asked: Asked,
}

impl Walk {
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
            explanation.help = format!(
                "The kernel sends it as it is, by that route; no program of flannel's sees it.{}",
                self.beyond()
            );
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
            let flow = TunnelFlow {
                source: outer.source,
                destination: outer.destination,
                port: outer.port,
                vrf: Some(self.node.vrf).filter(|vrf| *vrf != 0),
            };
            let route = self.netlink.route_of_tunnel(flow).await.ok().flatten();
            if route.is_none() {
                explanation.judge(Hook::Encap, Reason::NoRoute);
            }
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
            explanation.help = format!(
                "It comes as it is, by the underlay; no program of flannel's sees it, and no guard.{}",
                self.beyond()
            );
            return explanation;
        };
        // A host that is no peer sends from its own address.
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

    /// What decides where this host cannot see it.
    fn beyond(&self) -> &'static str {
        match Kind::from_number(self.node.backend) {
            Some(Kind::Cloud(_)) => {
                " Which host gets it is decided by the route tables of the cloud: `flannelctl status` names them."
            }
            _ => "",
        }
    }

    async fn mtu(&self, device: Option<u32>) -> anyhow::Result<Option<Mtu>> {
        let Some(device) = device else { return Ok(None) };
        let link = self.netlink.link_by_index(device).await?;
        let packet = self.asked.size;
        Ok(link.map(|link| Mtu { device: link.mtu, packet, fits: u32::from(packet) <= link.mtu }))
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
