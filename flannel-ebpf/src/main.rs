//! The programs that the kernel runs. Each asks the packet logic for the reason of a packet's verdict, counts the
//! packet under it and acts on the verdict.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "only the kernel calls the programs, but they are linted on the host")
)]
#![expect(
    missing_docs,
    reason = "the program macros make a second function of each program, without its comment"
)]

mod clock;
mod context;
mod count;
mod fib;
mod flow_table;
mod key;
mod log;
mod next_hop;
mod pod;
mod table;
mod trace;

use core::cell::UnsafeCell;

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use flannel_common::maps::{Carrier, Guard, Node, Port};
use flannel_common::wire::EthernetHeader;
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_ebpf::arrival::Arrival;
use flannel_ebpf::frame::{Encapsulation, FlowFrame as _, Frame};
use flannel_ebpf::udp::State;
use flannel_ebpf::{guard, inner, udp, vxlan};

use crate::context::{BareSkb, Skb, Xdp};
use crate::next_hop::Lookup;
use crate::table::Table;

/// The host for which the programs were loaded. The loader writes it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.node")]
static NODE: ReadOnlyData = ReadOnlyData(UnsafeCell::new(Node::UNSET));

/// Read-only data, which the loader writes before the programs run. The compiler must not assume that it knows the
/// value. Nor should it keep copies of the fields on the stack: to read them again costs less.
#[repr(transparent)]
struct ReadOnlyData(UnsafeCell<Node>);

// SAFETY: nothing writes it while programs run.
unsafe impl Sync for ReadOnlyData {}

/// The licence. The kernel requires a GPL-compatible one for its GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The mark of a packet between [`vxlan_decap`], which sets it, and [`vxlan_device`], which clears it. Nobody else sees
/// the packet in between.
const GUARDED: u32 = 0xe5;
/// The priority of a packet that has passed the guard and that the kernel's device decapsulates, until [`vxlan_device`]
/// clears it and counts the packet for its peer. Not a mark: the outer packet passes netfilter, whose rules set marks
/// (`CONNMARK --restore-mark`). What comes out of a pod has no priority (`____dev_forward_skb`).
const LEFT_TO_DEVICE: u32 = 0x666c_e601;
/// The mark of a packet without a mark.
const UNMARKED: u32 = 0;

#[inline(always)]
const fn node() -> &'static Node {
    // SAFETY: nothing writes it while programs run.
    unsafe { &*NODE.0.get() }
}

/// TC egress of `flannel.<VNI>`.
#[classifier]
pub fn vxlan_encap(context: TcContext) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    let bytes = skb.len();
    let sent = vxlan::encapsulate(&mut skb, &Table, node, |skb, peer| pod::depart(skb, node, peer));
    if let Err(Reason::LeftToDevice | Reason::LeftToPolicy) = sent
        && let Ok(inner) = inner::headers(&skb)
    {
        count::add_sent(inner.ip.destination().masked(node.netmask), bytes);
    }
    finish_encap(&mut skb, Hook::Encap, bytes, sent)
}

/// TC egress of `flannel0`.
#[classifier]
pub fn udp_encap(context: TcContext) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    let bytes = skb.len();
    let sent =
        udp::encapsulate(&mut skb, &Table, node, State::AsSent, |skb, peer| pod::depart(skb, node, peer));
    match sent {
        Err(Reason::ToSegment) => {
            let reason = skb.transmit(node.segmenter).err().unwrap_or(Reason::ToSegment);
            finish(&skb, Hook::Encap, reason)
        }
        sent => finish_encap(&mut skb, Hook::Encap, bytes, sent),
    }
}

/// TC ingress of the segmenter's exit.
#[classifier]
pub fn udp_segmented(context: TcContext) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    let bytes = skb.len();
    let sent = udp::encapsulate(&mut skb, &Table, node, State::Segmented, |skb, peer| {
        next_hop::find(skb, node, peer)
    });
    finish_encap(&mut skb, Hook::Segmented, bytes, sent)
}

/// TC ingress of the underlay, for VXLAN.
#[classifier]
pub fn vxlan_decap(context: TcContext) -> i32 {
    decap_at_tc(context, GUARDED, Encapsulation::Vxlan)
}

/// TC ingress of the underlay, for UDP.
#[classifier]
pub fn udp_decap(context: TcContext) -> i32 {
    decap_at_tc(context, UNMARKED, Encapsulation::Udp)
}

/// As [`vxlan_decap`], for links without Ethernet headers, as those of WireGuard and TUN devices.
#[classifier]
pub fn vxlan_decap_l3(context: TcContext) -> i32 {
    decap_without_header(context, GUARDED, Encapsulation::Vxlan)
}

/// As [`udp_decap`], for links without Ethernet headers.
#[classifier]
pub fn udp_decap_l3(context: TcContext) -> i32 {
    decap_without_header(context, UNMARKED, Encapsulation::Udp)
}

/// XDP of the underlay, for VXLAN. [`vxlan_decap`] continues with the packet.
#[xdp(frags)]
pub fn vxlan_xdp(context: XdpContext) -> u32 {
    decap_at_xdp::<true>(context, Encapsulation::Vxlan)
}

/// XDP of the underlay, for UDP. [`udp_decap`] continues with the packet.
#[xdp(frags)]
pub fn udp_xdp(context: XdpContext) -> u32 {
    decap_at_xdp::<true>(context, Encapsulation::Udp)
}

/// As [`vxlan_xdp`], for generic XDP. It does not take packets of several buffers. For programs that do, a kernel since
/// 6.9 copies packets (`netif_skb_check_for_xdp`), and TC sees the copies without their Ethernet headers.
#[xdp]
pub fn vxlan_xdp_skb(context: XdpContext) -> u32 {
    decap_at_xdp::<true>(context, Encapsulation::Vxlan)
}

/// As [`udp_xdp`], for generic XDP.
#[xdp]
pub fn udp_xdp_skb(context: XdpContext) -> u32 {
    decap_at_xdp::<true>(context, Encapsulation::Udp)
}

/// As [`vxlan_xdp`], for kernels without packets of several buffers (before 5.18), in the driver and generic.
#[xdp]
pub fn vxlan_xdp_linear(context: XdpContext) -> u32 {
    decap_at_xdp::<false>(context, Encapsulation::Vxlan)
}

/// As [`udp_xdp`], for kernels without packets of several buffers.
#[xdp]
pub fn udp_xdp_linear(context: XdpContext) -> u32 {
    decap_at_xdp::<false>(context, Encapsulation::Udp)
}

/// TC ingress of `flannel.<VNI>`. The kernel decapsulates packets itself that arrive at an interface without our
/// programs. Those have passed no guard.
#[classifier]
pub fn vxlan_device(context: TcContext) -> i32 {
    let (node, skb) = (node(), Skb::<0>::new(context));
    let guarded = if skb.mark() == GUARDED {
        skb.set_mark(UNMARKED);
        Reason::Guarded
    } else if skb.priority() == LEFT_TO_DEVICE {
        skb.set_priority(0);
        take_from_device(&skb, node).err().unwrap_or(Reason::Guarded)
    } else if node.guard == Guard::Off as u32 {
        Reason::NotDecapsulated
    } else {
        Reason::NotGuarded
    };
    let reason = if is_former_device(&skb, node) { enter_by_device(&skb, node, guarded) } else { guarded };
    finish(&skb, Hook::Device, reason)
}

#[inline(always)]
fn is_former_device(skb: &Skb, node: &Node) -> bool {
    node.former_device != 0 && skb.interface() == node.former_device
}

/// Lets a packet that the kernel's device of the former format has decapsulated enter by the present one, if it may
/// enter: a strict rp_filter wants packets from where the route leads back to.
#[inline(always)]
fn enter_by_device(skb: &Skb, node: &Node, guarded: Reason) -> Reason {
    if let Verdict::Drop = guarded.verdict() {
        return guarded;
    }
    skb.set_mark(GUARDED);
    skb.receive(node.device).err().unwrap_or(Reason::Forwarded)
}

/// Counts a packet that the kernel's device has decapsulated for its peer, if it may enter.
#[inline(always)]
fn take_from_device(skb: &Skb, node: &Node) -> Result<(), Reason> {
    let Ok(inner) = inner::headers(skb) else { return Ok(()) };
    if is_carried_by_stack(node) {
        guard::admit_decrypted(node, &Table, &inner.ip)?;
    }
    let subnet = inner.ip.source().masked(node.netmask);
    count::add_received(subnet, skb.len());
    if is_former_device(skb, node) {
        count::note_former(subnet);
    }
    Ok(())
}

#[inline(always)]
const fn is_carried_by_stack(node: &Node) -> bool {
    node.carrier == Carrier::Stack as u16
}

/// TC egress of a bridge with pods. A super-packet out of the tunnel goes to the pod's port uncut. The bridge would cut
/// it, because it does not know that its ports take encapsulated super-packets.
#[classifier]
pub fn bridge(context: TcContext) -> i32 {
    let skb: Skb = Skb::new(context);
    let reason = match forward_to_port(&skb, node()) {
        Ok(()) => Reason::Forwarded,
        Err(reason) => reason,
    };
    finish(&skb, Hook::Bridge, reason)
}

#[inline(always)]
fn forward_to_port(skb: &Skb, node: &Node) -> Result<(), Reason> {
    if skb.received_by() != node.device || !skb.is_super_packet() {
        return Err(Reason::NotDecapsulated);
    }
    let ethernet: EthernetHeader = skb.load(0)?;
    let pod = Port { bridge: skb.interface(), mac: ethernet.destination, reserved: 0 };
    let port = table::port(pod).ok_or(Reason::UnknownPort)?;
    skb.transmit(port)
}

#[inline(always)]
fn finish_encap(skb: &mut Skb, hook: Hook, bytes: u32, sent: Result<(Ip4, Lookup), Reason>) -> i32 {
    table::keep_node_info();
    let sent = sent.and_then(|(subnet, hop)| hop.send(skb, subnet).map(|()| subnet));
    match sent {
        Ok(subnet) => {
            count::add_sent(subnet, bytes);
            count::add_packet(hook, Reason::Forwarded, bytes);
            trace::report_verdict(skb, hook, Reason::Forwarded);
            action(Verdict::Forward)
        }
        Err(reason) => finish(skb, hook, reason),
    }
}

/// Reads the headers of a packet that arrived at the underlay. Not a function that is passed on: the compiler may call that,
/// and without `CAP_PERFMON` older verifiers refuse reads of what it has not written.
#[inline(always)]
fn open(encapsulation: Encapsulation, frame: &impl Frame, node: &Node) -> Result<Arrival, Reason> {
    match encapsulation {
        Encapsulation::Udp => udp::open(frame, node),
        Encapsulation::Vxlan => vxlan::open(frame, node),
    }
}

#[inline(always)]
fn decap_at_tc(context: TcContext, mark: u32, encapsulation: Encapsulation) -> i32 {
    let node = node();
    let mut skb: Skb = Skb::new(context);
    // No other program of ours writes it there.
    if skb.has_token() && skb.interface() == node.underlay {
        return finish_handover(&mut skb, node, mark);
    }
    if skb.is_of_vlan() {
        return finish(&skb, Hook::Decap, Reason::NotTunnel);
    }
    trace::report_arrival(&skb, Hook::Decap);
    // One branch for what was opened and what was not, as in [`pod::arrive`].
    match open(encapsulation, &skb, node) {
        Ok(arrival) => {
            let is_former = vxlan::is_former(&skb, node);
            finish_decap(&mut skb, node, &arrival, (mark, is_former))
        }
        Err(reason) => finish_other(&skb, node, reason),
    }
}

/// The same for a packet without an Ethernet header. It gets one only when it is sure to leave for the flannel device:
/// the stack takes it as it came.
#[inline(always)]
fn decap_without_header(context: TcContext, mark: u32, encapsulation: Encapsulation) -> i32 {
    let node = node();
    let bare = BareSkb::new(context);
    trace::report_arrival(&bare, Hook::Decap);
    let arrival = match open(encapsulation, &bare, node) {
        Ok(arrival) => arrival,
        Err(reason) => return finish_other(&bare, node, reason),
    };
    if let Err(reason) = arrival.admit(&bare, &Table, node) {
        return refuse(&bare, reason);
    }
    match bare.with_header() {
        // The stack of a program has no room to tell that it came in the former format.
        Ok(mut skb) => finish_decap(&mut skb, node, &arrival, (mark, false)),
        Err(_) => action(Verdict::Drop),
    }
}

/// Leaves a packet that is not opened to the stack, or drops it, for this `reason` or that of the guard.
#[inline(always)]
fn finish_other<const MISSING: u32>(skb: &Skb<MISSING>, node: &Node, reason: Reason) -> i32 {
    if reason == Reason::NotTunnel
        && let Err(refusal) = guard::admit_plain(skb, &Table, node)
    {
        return finish(skb, Hook::Decap, refusal);
    }
    if is_carried_by_stack(node) && guard::is_ipsec_of_peer(skb, &Table) {
        skb.set_priority(LEFT_TO_DEVICE);
    }
    finish(skb, Hook::Decap, reason)
}

#[inline(always)]
fn finish_decap(skb: &mut Skb, node: &Node, arrival: &Arrival, (mark, is_former): (u32, bool)) -> i32 {
    match pod::arrive(skb, node, arrival, mark) {
        Ok(reason) => {
            let subnet = arrival.subnet(node);
            count::add_received(subnet, skb.len());
            if is_former {
                count::note_former(subnet);
            }
            finish(skb, Hook::Decap, reason)
        }
        Err(reason) => refuse(skb, reason),
    }
}

/// Leaves a packet of the tunnel to the stack, or drops it.
#[inline(always)]
fn refuse<const MISSING: u32>(skb: &Skb<MISSING>, reason: Reason) -> i32 {
    // Never with UDP: no device of the kernel decapsulates its packets.
    if matches!(reason, Reason::LeftToDevice | Reason::LeftToPolicy | Reason::Reassemble) {
        skb.set_priority(LEFT_TO_DEVICE);
    }
    finish(skb, Hook::Decap, reason)
}

/// Sends a packet that our XDP program has decapsulated and counted to its pod or to the flannel device.
#[inline(always)]
fn finish_handover(skb: &mut Skb, node: &Node, mark: u32) -> i32 {
    let reason = pod::take_over(skb, node, mark).unwrap_or_else(|reason| reason);
    finish(skb, Hook::Decap, reason)
}

/// Counts and reports a packet under its reason. Returns the action of the verdict.
#[inline(always)]
fn finish<const MISSING: u32>(skb: &Skb<MISSING>, hook: Hook, reason: Reason) -> i32 {
    count::add_packet(hook, reason, skb.len());
    trace::report_verdict(skb, hook, reason);
    log::report_verdict(skb, hook, reason);
    action(reason.verdict())
}

#[inline(always)]
const fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Forward => TC_ACT_REDIRECT,
        // Not TC_ACT_OK, which would end the chain before programs of others.
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn decap_at_xdp<const HELPERS: bool>(context: XdpContext, encapsulation: Encapsulation) -> u32 {
    let node = node();
    let mut xdp = Xdp::<HELPERS>::new(context);
    trace::report_arrival(&xdp, Hook::Xdp);
    // One branch for what was opened and what was not, as in [`pod::arrive`].
    match open(encapsulation, &xdp, node) {
        Ok(arrival) => {
            let arrived = arrival.decapsulate(&mut xdp, &Table, node);
            finish_xdp(&xdp, arrived)
        }
        Err(reason) => finish_xdp(&xdp, Err(reason)),
    }
}

#[inline(always)]
fn finish_xdp<const HELPERS: bool>(xdp: &Xdp<HELPERS>, arrived: Result<Ip4, Reason>) -> u32 {
    let bytes = xdp.len();
    let reason = match arrived {
        Ok(subnet) => {
            count::add_received(subnet, bytes);
            Reason::Forwarded
        }
        Err(reason) => reason,
    };
    count::add_packet(Hook::Xdp, reason, bytes);
    trace::report_verdict(xdp, Hook::Xdp, reason);
    log::report_verdict(xdp, Hook::Xdp, reason);
    match reason.verdict() {
        // The packet continues to TC, where our program sends it to the flannel device.
        Verdict::Forward | Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The programs are for the kernel; on the host they are only linted.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
