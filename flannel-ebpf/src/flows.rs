//! Learned flows: whose packets can skip bridge, routing and netfilter because those change nothing of them.
//!
//! [`enter`] is asked where a packet would enter the stack, [`leave`] where it leaves it.

use flannel_common::flow::{
    ANNOUNCE, Connection, Direction, Entered, FastPath, Flow, FlowKey, Left, MANY, VALID, WORTHWHILE,
};
use flannel_common::maps::{Node, Peer};
use flannel_common::{Ip4, Mac, Reason};

use crate::frame::FlowFrame;
use crate::peers::Peers;
use crate::segment::Packet;

/// What is known of flows, and of connections that can be shortened.
pub trait Flows {
    /// Where a flow is kept.
    type Entry: Entry;

    /// What is known of the flow with this key.
    fn find(&self, key: &FlowKey) -> Option<Self::Entry>;

    /// Begins to learn it anew; nothing where there is no room for it.
    fn begin(&self, key: &FlowKey) -> Option<Self::Entry>;

    /// Forgets the flow, and that its connection can be shortened.
    fn forget(&self, key: &FlowKey);

    /// Whether the daemon has found that `connection` can be shortened.
    fn is_approved(&self, connection: &Connection) -> bool;

    /// Asks the daemon to find that out.
    fn announce(&self, connection: &Connection);

    /// Nanoseconds of the coarse monotonic clock.
    fn now(&self) -> u64;

    /// The generation of the host's state.
    fn generation(&self) -> u32;
}

/// What is known of a flow. Each part has one who writes it, and is written by several processors in turn: what one
/// does not see of the other is learned anew within [`VALID`].
pub trait Entry {
    /// A copy.
    fn get(&self) -> Flow;

    /// A packet enters the stack.
    fn enter(&self, entered: &Entered, in_stack: u32);

    /// Packets in the stack are fewer by now.
    fn drain(&self, in_stack: u32);

    /// One leaves it unchanged.
    fn leave(&self, left: &Left);
}

/// Whether anything is learned at all.
#[must_use]
#[inline(always)]
pub const fn are_learned(node: &Node) -> bool {
    node.fast_path != FastPath::Off as u32
}

/// A pod's packet: which peer it is for.
#[inline(always)]
pub fn to_peer(packet: &Packet, peers: &impl Peers, node: &Node) -> Result<(Ip4, Peer), Reason> {
    let subnet = packet.ip.destination().masked(node.netmask);
    if packet.ip.source().masked(node.netmask) != node.subnet || subnet == node.subnet {
        return Err(Reason::ToStack);
    }
    peers.peer(subnet).map(|peer| (subnet, peer)).ok_or(Reason::ToStack)
}

/// A packet that came over the underlay as it is: of which peer it comes, if by a route.
#[inline(always)]
pub fn from_peer(packet: &Packet, peers: &impl Peers, node: &Node) -> Result<Ip4, Reason> {
    if packet.ip.destination().masked(node.netmask) != node.subnet {
        return Err(Reason::ToStack);
    }
    let subnet = packet.ip.source().masked(node.netmask);
    match peers.peer(subnet) {
        Some(peer) if peer.direct != 0 => Ok(subnet),
        _ => Err(Reason::ToStack),
    }
}

/// How the packet goes on if it skips the stack; otherwise the reason why it must not.
#[inline(always)]
pub fn enter(
    frame: &impl FlowFrame,
    packet: &Packet,
    flows: &impl Flows,
    direction: Direction,
) -> Result<Left, Reason> {
    let key = packet.key(direction);
    if packet.is_edge {
        flows.forget(&key);
        return Err(Reason::FlowEdge);
    }
    let (now, generation) = (flows.now(), flows.generation());
    let (destination, source) = match direction {
        Direction::Out => (packet.ethernet.destination, packet.ethernet.source),
        Direction::In => (Mac::ZERO, Mac::ZERO),
    };
    let ttl = u32::from(packet.ip.ttl);
    let entered = Entered { at: now, interface: frame.interface(), generation, destination, source, ttl };
    let known = flows.find(&key).map(|entry| (entry.get(), entry));
    let Some((flow, entry)) = known.filter(|(flow, _)| flow.entered.is_same_way(&entered)) else {
        if let Some(entry) = flows.begin(&key) {
            entry.enter(&entered, 1);
        }
        return Err(Reason::Learning);
    };
    if !flow.is_short(now, generation) {
        let before = if flow.is_drained(now) { 0 } else { flow.in_stack };
        entry.enter(&entered, before + 1);
        return Err(Reason::Learning);
    }
    if packet.wire_len(frame) > flow.left.mtu {
        return Err(Reason::TooLong);
    }
    Ok(flow.left)
}

/// Learns from a packet that leaves the stack.
#[inline(always)]
pub fn leave(frame: &impl FlowFrame, flows: &impl Flows, node: &Node, direction: Direction) -> Reason {
    match confirm(frame, flows, node, direction) {
        Ok(()) => Reason::Confirmed,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn confirm(
    frame: &impl FlowFrame,
    flows: &impl Flows,
    node: &Node,
    direction: Direction,
) -> Result<(), Reason> {
    let packet = Packet::read(frame).map_err(|_| Reason::Unconfirmed)?;
    let key = packet.key(direction);
    let entry = flows.find(&key).ok_or(Reason::Unconfirmed)?;
    let flow = entry.get();
    if !came_by_the_stack(frame, &flow, node, direction) {
        return Err(Reason::Unconfirmed);
    }
    let packets = flow.left.packets.wrapping_add(1);
    if flow.in_stack > 0 {
        // One that was lost in the stack must not count for ever.
        entry.drain(if packets % MANY == 0 { 0 } else { flow.in_stack - 1 });
    }
    let (now, generation) = (flows.now(), flows.generation());
    let is_unchanged = flow.entered.ttl == u32::from(packet.ip.ttl) + 1
        && flow.entered.generation == generation
        && now.wrapping_sub(flow.entered.at) < VALID
        && frame.mark() == 0;
    if !is_unchanged {
        return Err(Reason::Unconfirmed);
    }
    let mut left = Left {
        interface: frame.interface(),
        generation,
        mtu: frame.mtu(),
        priority: frame.priority(),
        packets,
        ..flow.left
    };
    if direction == Direction::In {
        (left.destination, left.source) = (packet.ethernet.destination, packet.ethernet.source);
    }
    let connection = key.connection();
    let may = !packet.is_tcp() || node.fast_path == FastPath::Direct as u32 || flows.is_approved(&connection);
    if may {
        left.until = now + VALID;
    } else if left.packets >= WORTHWHILE && now.wrapping_sub(left.announced) > ANNOUNCE {
        left.announced = now;
        flows.announce(&connection);
    }
    entry.leave(&left);
    if may { Ok(()) } else { Err(Reason::Unconfirmed) }
}

/// Whether routing has sent the packet here. One that skipped the stack still bears the interface by which the host
/// received it, and one that a neighbour behind the same bridge made up bears the neighbour's.
#[inline(always)]
fn came_by_the_stack(frame: &impl FlowFrame, flow: &Flow, node: &Node, direction: Direction) -> bool {
    let came_by = frame.received_by();
    match direction {
        Direction::Out => came_by != 0 && came_by != flow.entered.interface,
        Direction::In => came_by != 0 && (came_by == node.device || came_by == flow.entered.interface),
    }
}
