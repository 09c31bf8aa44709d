//! Learned flows. Their packets can bypass bridge, routing and netfilter, because those do not change them.
//!
//! For a packet that is about to enter the stack, [`bypass`] returns how it can bypass it. [`enter`] learns from a
//! packet that enters, and [`leave`] from one that leaves.

use flannel_common::flow::{
    ANNOUNCE, Bypass, BypassEntry, BypassHop, Connection, Direction, Flow, FlowKey, IngressState, MANY, OVER,
    VALID, WORTHWHILE, Way, ticks,
};
use flannel_common::maps::Node;
use flannel_common::wire::EthernetHeader;
use flannel_common::{Ip4, Mac, Reason};

use crate::frame::FlowFrame;
use crate::packet::Packet;

/// What is known of flows, and of connections that can bypass the stack.
pub trait Flows {
    /// The place of a flow.
    type Entry: Entry;

    /// What is known of the flow with this key.
    fn find(&self, key: &FlowKey) -> Option<Self::Entry>;

    /// Begins to learn the flow from nothing, at `now`. Returns none if there is no room for it.
    fn begin(&self, key: &FlowKey, now: u64) -> Option<Self::Entry>;

    /// Forgets the flow, and that its connection can bypass the stack.
    fn forget(&self, key: &FlowKey);

    /// Whether the daemon has approved a bypass for `connection`.
    fn is_approved(&self, connection: &Connection) -> bool;

    /// Whether a bridge has learned that `station` is behind the port with that interface index.
    fn is_behind(&self, port: u32, station: Mac) -> bool;

    /// Asks the daemon for that approval.
    fn announce(&self, connection: &Connection);

    /// Nanoseconds of the coarse monotonic clock.
    fn now(&self) -> u64;

    /// The generation of the host's state.
    fn generation(&self) -> u32;
}

/// What is known of a flow. One program writes each part, on several CPUs in turn. What one CPU does not see of
/// another's writes is learned again within [`VALID`].
pub trait Entry {
    /// A copy.
    fn get(&self) -> Flow;

    /// Whether the entry still belongs to this flow.
    fn is_of(&self, key: &FlowKey) -> bool;

    /// Notes a packet that enters the stack, and with it how many of the flow are there, and how many of them behind the
    /// sample.
    fn enter(&self, entered: &IngressState, in_stack: u16, behind: u16);

    /// Notes at `now` that packets enter in two ways, and that none can bypass the stack.
    fn contest(&self, now: u64);

    /// Notes how many packets are still in the stack.
    fn drain(&self, in_stack: u16);

    /// Notes that the sample has left the stack. The next packet that enters is the next one.
    fn finish_sample(&self);

    /// Notes a packet that leaves the stack unchanged.
    fn leave(&self, left: &BypassEntry);
}

/// The origin of a packet that is about to enter the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod of this host.
    Pod,
    /// A peer, by a route, without a tunnel.
    Underlay,
    /// A peer, through the tunnel: its address, and whether its datagram shows that it takes packets whole.
    Tunnel(Ip4, bool),
}

/// The destination of a packet that leaves the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// To a pod of this host.
    Pod,
    /// To a peer by the underlay, without a tunnel.
    Underlay,
    /// To a peer through the tunnel: the next hop, and until when that is valid.
    Tunnel(BypassHop, u64),
}

impl Origin {
    const fn direction(self) -> Direction {
        match self {
            Self::Pod => Direction::Out,
            Self::Underlay | Self::Tunnel(..) => Direction::In,
        }
    }
}

impl Exit {
    const fn direction(self) -> Direction {
        match self {
            Self::Pod => Direction::In,
            Self::Underlay | Self::Tunnel(..) => Direction::Out,
        }
    }
}

/// Whether the programs learn flows.
#[must_use]
#[inline(always)]
pub const fn are_learned(node: &Node) -> bool {
    node.bypass != Bypass::Off as u32
}

/// The first address of the subnet to which a pod sends the packet, if that can be a peer's.
#[inline(always)]
pub fn to_peer(packet: &Packet, node: &Node) -> Result<Ip4, Reason> {
    let subnet = packet.ip.destination().masked(node.netmask);
    let is_local = packet.ip.source().masked(node.netmask) == node.subnet;
    if is_local && subnet != node.subnet { Ok(subnet) } else { Err(Reason::ToStack) }
}

/// The first address of the subnet from which a packet for a pod came without a tunnel. It can be a peer's.
#[inline(always)]
pub fn from_peer(packet: &Packet, node: &Node) -> Result<Ip4, Reason> {
    let is_local = packet.ip.destination().masked(node.netmask) == node.subnet;
    if is_local { Ok(packet.ip.source().masked(node.netmask)) } else { Err(Reason::ToStack) }
}

/// How the packet continues if it can bypass the stack.
#[inline(always)]
pub fn bypass(
    frame: &impl FlowFrame,
    packet: &Packet,
    origin: Origin,
    flows: &impl Flows,
) -> Option<BypassEntry> {
    if packet.is_edge {
        return None;
    }
    let (now, generation) = (flows.now(), flows.generation());
    let key = packet.key(origin.direction());
    let entry = flows.find(&key)?;
    let flow = entry.get();
    let can_bypass = flow.can_bypass(now, generation)
        && flow.entered.has_same_path(&ingress_state(frame, packet, origin, now, generation))
        && packet.wire_len(frame) <= flow.left.mtu
        && entry.is_of(&key);
    can_bypass.then_some(flow.left)
}

/// Learns from a packet that enters the stack. Returns why it has to.
#[inline(always)]
pub fn enter(frame: &impl FlowFrame, packet: &Packet, origin: Origin, flows: &impl Flows) -> Reason {
    let key = packet.key(origin.direction());
    if packet.is_edge {
        flows.forget(&key);
        return Reason::FlowEdge;
    }
    let (now, generation) = (flows.now(), flows.generation());
    let mut entered = ingress_state(frame, packet, origin, now, generation);
    entered.fingerprint = packet.fingerprint(frame);
    let known = flows.find(&key).map(|entry| (entry.get(), entry));
    match known {
        Some((flow, entry)) if flow.entered.has_same_path(&entered) => {
            let is_drained = flow.is_drained(now);
            if flow.can_bypass(now, generation) && packet.wire_len(frame) > flow.left.mtu {
                return Reason::TooLong;
            }
            let mut behind = 0;
            if !is_drained && flow.has_sample(now) {
                (entered.fingerprint, entered.sampled) = (flow.entered.fingerprint, flow.entered.sampled);
                behind = flow.behind + 1;
            }
            entry.enter(&entered, if is_drained { 1 } else { flow.in_stack + 1 }, behind);
        }
        Some((flow, entry))
            if now.wrapping_sub(flow.entered.at) < OVER && !flow.entered.is_of_same_sender(&entered) =>
        {
            // Whichever of the two packets leaves the stack, it must not prove the way of the other one.
            entry.contest(now);
            entry.enter(&entered, 1, 0);
        }
        _ => {
            if let Some(entry) = flows.begin(&key, now) {
                entry.enter(&entered, 1, 0);
            }
        }
    }
    Reason::Learning
}

#[inline(always)]
fn ingress_state(
    frame: &impl FlowFrame,
    packet: &Packet,
    origin: Origin,
    at: u64,
    generation: u32,
) -> IngressState {
    let EthernetHeader { destination, source, .. } = packet.ethernet;
    let (destination, source, outer_source, whole) = match origin {
        Origin::Pod => (destination, source, Ip4::UNSPECIFIED, false),
        Origin::Underlay => (Mac::ZERO, Mac::ZERO, Ip4::UNSPECIFIED, false),
        Origin::Tunnel(outer_source, whole) => (Mac::ZERO, Mac::ZERO, outer_source, whole),
    };
    IngressState {
        at,
        destination,
        source,
        interface: frame.interface(),
        ttl: packet.ip.ttl,
        whole: whole.into(),
        sampled: ticks(at) as u16,
        outer_source,
        generation,
        fingerprint: 0,
    }
}

/// Learns from a packet that leaves the stack.
#[inline(always)]
pub fn leave(frame: &impl FlowFrame, flows: &impl Flows, node: &Node, exit: Exit) -> Reason {
    match confirm(frame, flows, node, exit) {
        Ok(()) => Reason::Confirmed,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn confirm(frame: &impl FlowFrame, flows: &impl Flows, node: &Node, exit: Exit) -> Result<(), Reason> {
    let packet = Packet::read(frame).map_err(|_| Reason::Unconfirmed)?;
    let key = packet.key(exit.direction());
    let entry = flows.find(&key).ok_or(Reason::Unconfirmed)?;
    let flow = entry.get();
    let Flow { left: before, entered, in_stack, .. } = flow;
    if !is_routed(frame, &entered, node, exit.direction()) {
        return Err(Reason::Unconfirmed);
    }
    let packets = before.packets.wrapping_add(1);
    let (now, generation) = (flows.now(), flows.generation());
    let is_sample = flow.has_sample(now) && entered.fingerprint == packet.fingerprint(frame);
    if in_stack > 0 {
        let left = in_stack - 1;
        entry.drain(match is_sample {
            // A count that is never zero is wrong some time: the flow may use two CPUs.
            true if packets % u32::from(MANY) == 0 => 0,
            // Packets of a flow leave in their order. Those before the sample that have not left were lost.
            true if flow.behind < left => flow.behind,
            _ => left,
        });
    }
    let is_unchanged = is_sample
        && u32::from(entered.ttl) == u32::from(packet.ip.ttl) + 1
        && entered.generation == generation
        && now.wrapping_sub(entered.at) < VALID
        && !flow.is_contested(now)
        && frame.mark() == 0;
    if !is_unchanged {
        return Err(Reason::Unconfirmed);
    }
    // A bridge that does not know the receiver sends copies to all its ports (`br_flood`).
    if exit == Exit::Pod && !flows.is_behind(frame.interface(), packet.ethernet.destination) {
        return Err(Reason::Unconfirmed);
    }
    entry.finish_sample();
    // What was checked when the packet entered, by the guard too, is valid until then.
    let checked_until = entered.at + VALID;
    let (onward, until) = match exit {
        Exit::Tunnel(onward, until) => (onward, until.min(checked_until)),
        Exit::Pod | Exit::Underlay => (plain_hop(&packet.ethernet, frame.interface()), checked_until),
    };
    let mut left = BypassEntry {
        until: before.until,
        generation,
        interface: frame.interface(),
        mtu: frame.mtu(),
        priority: frame.priority(),
        onward,
        packets,
        announced: before.announced,
    };
    let connection = key.connection();
    let may = !packet.is_tcp() || node.bypass == Bypass::Direct as u32 || flows.is_approved(&connection);
    if may {
        left.until = until;
    } else if packets >= WORTHWHILE && now.wrapping_sub(before.announced) > ANNOUNCE {
        left.announced = now;
        flows.announce(&connection);
    }
    entry.leave(&left);
    if may { Ok(()) } else { Err(Reason::Unconfirmed) }
}

/// The next hop of a packet by `device`, with the Ethernet header that it has.
#[inline(always)]
const fn plain_hop(ethernet: &EthernetHeader, device: u32) -> BypassHop {
    let EthernetHeader { destination, source, .. } = *ethernet;
    BypassHop {
        destination,
        source,
        public_ip: Ip4::UNSPECIFIED,
        vtep_mac: Mac::ZERO,
        way: Way::Plain as u16,
        device,
    }
}

/// Whether routing has sent the packet here. A packet that bypassed the stack still has the ingress interface of the
/// host, and one that a neighbour behind the same bridge forged has the neighbour's.
#[inline(always)]
fn is_routed(frame: &impl FlowFrame, entered: &IngressState, node: &Node, direction: Direction) -> bool {
    let came_by = frame.received_by();
    match direction {
        Direction::Out => came_by != 0 && came_by != entered.interface,
        Direction::In => came_by != 0 && (came_by == node.device || came_by == entered.interface),
    }
}
