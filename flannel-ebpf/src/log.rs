//! Lines for the daemon's log about packets that do not go where they should, where the operator wants them.
//!
//! Whether he does is decided when the programs are loaded: the kernel leaves out of them what cannot run, so that
//! what nobody wants costs nothing.

use aya_log_ebpf::macro_support::{Level, level_enabled};
use flannel_common::maps::{Backend, Node};
use flannel_common::wire::{EthernetHeader, Ipv4Header, UdpStack, VxlanStack};
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_ebpf::frame::Frame;
use flannel_ebpf::outer::OuterHeaders;

use crate::node;
use crate::trace::Witnessed;

/// Tells what becomes of a packet, where that is of note and wanted.
#[inline(always)]
pub(crate) fn decided(packet: &(impl Frame + Witnessed), hook: Hook, reason: Reason) {
    if level_enabled(Level::Warn) {
        tell(packet, hook, reason);
    }
}

/// Not a part of the programs' straight way, which is entered with every packet. The daemon reads the words of the
/// line by their places.
#[inline(never)]
fn tell(packet: &(impl Frame + Witnessed), hook: Hook, reason: Reason) {
    let Some(level) = level(reason) else { return };
    let ((outer_source, outer_destination), (source, destination)) = addresses(packet, node());
    aya_log_ebpf::log!(
        packet, target: "", level, "{} {} {} {} {:i} {:i} {:i} {:i}",
        hook as u32, reason.number(), packet.interface(), packet.bytes(),
        outer_source.octets(), outer_destination.octets(), source.octets(), destination.octets()
    );
}

/// How much a packet's fate matters to operators; nothing where all is as it should be.
#[inline(always)]
const fn level(reason: Reason) -> Option<Level> {
    match reason.verdict() {
        Verdict::Drop => Some(Level::Warn),
        Verdict::Forward => None,
        Verdict::Pass => match reason {
            Reason::NotOurVni | Reason::Reassemble | Reason::TooLong => Some(Level::Info),
            _ => None,
        },
    }
}

/// Sender and receiver of the tunnel packet and of the packet within it; unspecified where there is none.
#[inline(always)]
fn addresses(packet: &impl Frame, node: &Node) -> (Ends, Ends) {
    match packet.load::<OuterHeaders>(0) {
        Ok(headers) if headers.is_for(node) => {
            // Both places are known to the verifier: without CAP_PERFMON it lets no program choose one.
            let [udp, vxlan] =
                [UdpStack::LEN, VxlanStack::LEN].map(|tunnel| ends(packet, EthernetHeader::LEN + tunnel));
            let inner = if node.backend == Backend::Vxlan as u32 { vxlan } else { udp };
            ((headers.ip.source(), headers.ip.destination()), inner)
        }
        _ => (NOBODY, ends(packet, EthernetHeader::LEN)),
    }
}

/// Sender and receiver in the IPv4 header at `offset`.
#[inline(always)]
fn ends(packet: &impl Frame, offset: u32) -> Ends {
    packet.load::<Ipv4Header>(offset).map_or(NOBODY, |header| (header.source(), header.destination()))
}

/// Sender and receiver.
type Ends = (Ip4, Ip4);

const NOBODY: Ends = (Ip4::UNSPECIFIED, Ip4::UNSPECIFIED);
