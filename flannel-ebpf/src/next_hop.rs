//! The next hop to a peer. The kernel owns routes, rules and neighbours. The programs ask it from time to time
//! (`bpf_fib_lookup`), and send packets to the last result in between.

use flannel_common::maps::{Backend, NextHop, Node, Peer};
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::flows::Flows as _;
use flannel_ebpf::frame::{FlowFrame as _, Frame as _};

use crate::context::Skb;
use crate::fib::{self, Answer, Gateway, Outcome, Question};
use crate::flow_table::FlowTable;
use crate::table;

/// The result of a lookup of the next hop to a peer.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    /// The next hop.
    pub hop: NextHop,
    /// The peer's public address.
    public_ip: Ip4,
    /// By what this packet goes, if the kernel has just been asked.
    gateway: Gateway,
    /// Whether the kernel has just been asked. Then the kernel finds the neighbour for this packet, which keeps that from
    /// becoming stale, and the packets behind it go to this next hop.
    is_new: bool,
}

/// Looks up the next hop to a `peer`. [`Reason::LeftToDevice`] where only the kernel's own device can go the way,
/// [`Reason::NoRoute`] where there is none.
#[inline(always)]
pub(crate) fn find(skb: &Skb, node: &Node, peer: &Peer) -> Result<Lookup, Reason> {
    let public_ip = peer.public_ip;
    let (now, generation) = (FlowTable.now(), FlowTable.generation());
    // Rules may route marked packets differently.
    let mark = skb.mark();
    if mark == 0 && peer.next_hop.holds(now, generation) {
        let gateway = Gateway::none(public_ip);
        return Ok(Lookup { hop: peer.next_hop, public_ip, gateway, is_new: false });
    }
    let mut answer = fib::ask(skb, &question(node, peer, mark));
    check(&mut answer, node, public_ip)?;
    let Answer { device, destination, source, gateway, .. } = answer;
    let until = if mark == 0 { now + NextHop::VALID } else { 0 };
    let hop = NextHop { until, destination, source, generation, device, reserved: 0 };
    Ok(Lookup { hop, public_ip, gateway, is_new: true })
}

/// Asks for the way to `peer` that the kernel's own device would go.
#[inline(always)]
const fn question(node: &Node, peer: &Peer, mark: u32) -> Question {
    let is_vxlan = is_vxlan(node);
    Question {
        from: if node.vrf == 0 { fib::LOOPBACK } else { node.vrf },
        source: node.local_ip,
        destination: peer.public_ip,
        port: if is_vxlan { peer.port as u16 } else { node.port as u16 },
        // The kernel's device fragments what is too long for the way, as it does for stock flannel. With udp there is
        // no such device.
        len: if is_vxlan { node.outer_mtu as u16 } else { 0 },
        mark,
    }
}

/// Whether packets can go the way that the kernel has told. Where it has not told it, they leave by the underlay: that is
/// written into `answer`. Not returned: without `CAP_PERFMON` the verifier refuses reads of an answer that there is not
/// (`sanitize_speculative_path`).
#[inline(always)]
fn check(answer: &mut Answer, node: &Node, public_ip: Ip4) -> Result<(), Reason> {
    match answer.outcome {
        // A packet of the tunnel would come back as one for the tunnel.
        Outcome::Known if answer.device == node.device => Err(Reason::NoRoute),
        Outcome::Known => Ok(()),
        Outcome::NoRoute => Err(Reason::NoRoute),
        Outcome::Untold if is_vxlan(node) => Err(Reason::LeftToDevice),
        // The kernel answers only where the loopback interface forwards, which it does with `ip_forward`.
        Outcome::Disabled | Outcome::Untold => {
            (answer.device, answer.gateway) = (node.underlay, Gateway::none(public_ip));
            Ok(())
        }
    }
}

#[inline(always)]
const fn is_vxlan(node: &Node) -> bool {
    node.backend == Backend::Vxlan as u32
}

impl Lookup {
    /// Sends a packet to the next hop, for the peer of `subnet`.
    #[inline(always)]
    pub(crate) fn send(&self, skb: &mut Skb, subnet: Ip4) -> Result<(), Reason> {
        if !self.is_new {
            return send(skb, self.hop.device, self.hop.destination, self.hop.source);
        }
        if self.hop.until != 0 {
            table::note_next_hop(subnet, self.public_ip, &self.hop);
        }
        skb.send_by(self.hop.device, &self.gateway)
    }
}

/// Sends a packet out of `device` with these Ethernet addresses. If they are zero, the kernel finds the neighbour.
#[inline(always)]
pub(crate) fn send(skb: &mut Skb, device: u32, destination: Mac, source: Mac) -> Result<(), Reason> {
    // Rules may route marked packets differently.
    if skb.mark() != 0 || destination == Mac::ZERO {
        return skb.route(device);
    }
    skb.address(destination, source)?;
    skb.transmit(device)
}
