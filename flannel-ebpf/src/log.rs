//! Lines for the daemon's log about packets that do not go where they should, at the level that the operator chose.
//!
//! The loader sets the level. The verifier removes the code that cannot run (`opt_remove_dead_code`), so a line that is
//! not wanted costs nothing.

use core::mem::MaybeUninit;

use aya_log_common::{ArgumentKind, DisplayHint, RecordFieldKind};
use aya_log_ebpf::macro_support::{AYA_LOGS, Level, level_enabled};
use flannel_common::line::Line;
use flannel_common::maps::{Backend, Node};
use flannel_common::wire::{EthernetHeader, Ipv4Header, UdpStack, VxlanStack};
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_ebpf::frame::Frame;
use flannel_ebpf::outer::OuterHeaders;

use crate::node;
use crate::trace::TraceFrame;

/// A record as aya-log reads it: a header, and one argument, the bytes of a [`Line`], which it shows in hexadecimal.
///
/// aya-log's macros compute the offsets in a record. Without CAP_PERFMON, a verifier before 6.17 also follows
/// speculative paths of that computation, and refuses the program. Here every offset is a constant.
#[repr(C)]
struct Record {
    header: [u32; HEADER_WORDS],
    line: Line,
}

const HEADER_WORDS: usize = 9;
const HEADER_BYTES: usize = size_of::<u32>() * HEADER_WORDS;
/// The word of the header with the level.
const LEVEL_WORD: usize = 2;

/// Reports a packet with the reason of its verdict, if that belongs in the log and the level admits it.
#[inline(always)]
pub(crate) fn report_verdict(packet: &(impl Frame + TraceFrame), hook: Hook, reason: Reason) {
    if level_enabled(Level::Warn) {
        report(packet, hook, reason);
    }
}

/// Not inlined, so that the path that every packet takes stays short.
#[inline(never)]
fn report(packet: &(impl Frame + TraceFrame), hook: Hook, reason: Reason) {
    let Some(level) = level(reason) else { return };
    if !level_enabled(level) {
        return;
    }
    let ((outer_source, outer_destination), (source, destination)) = addresses(packet, node());
    let (interface, bytes) = (packet.interface(), packet.bytes());
    let Some(mut entry) = AYA_LOGS.reserve::<Record>(0) else { return };
    let record: *mut Record = MaybeUninit::as_mut_ptr(&mut entry);
    // SAFETY: the entry is ours and large enough; its fields are plain data, all of which are written.
    unsafe {
        (*record).header = WARN;
        if matches!(level, Level::Info) {
            (*record).header[LEVEL_WORD] = INFO[LEVEL_WORD];
        }
        (*record).line = Line {
            hook: hook as u32,
            reason: reason.number(),
            interface,
            bytes,
            outer_source,
            outer_destination,
            source,
            destination,
        };
    }
    entry.submit(0);
}

const WARN: [u32; HEADER_WORDS] = header(Level::Warn);
const INFO: [u32; HEADER_WORDS] = header(Level::Info);

/// The header of a record, in the byte order of the machine: its length, then fields, each with its kind, its length
/// in two bytes and its value (`log_buf` of the crate aya-log reads them).
const fn header(level: Level) -> [u32; HEADER_WORDS] {
    let len = (size_of::<Record>() as u16).to_ne_bytes();
    let line = (size_of::<Line>() as u16).to_ne_bytes();
    let (zero, one, four) = (0_u16.to_ne_bytes(), 1_u16.to_ne_bytes(), 4_u16.to_ne_bytes());
    // A display hint and the bytes that it applies to.
    let arguments = 2_u32.to_ne_bytes();
    let bytes: [u8; HEADER_BYTES] = [
        len[0],
        len[1],
        RecordFieldKind::Target as u8,
        zero[0],
        zero[1],
        RecordFieldKind::Level as u8,
        one[0],
        one[1],
        level as u8,
        RecordFieldKind::Module as u8,
        zero[0],
        zero[1],
        RecordFieldKind::File as u8,
        zero[0],
        zero[1],
        RecordFieldKind::Line as u8,
        four[0],
        four[1],
        0,
        0,
        0,
        0,
        RecordFieldKind::NumArgs as u8,
        four[0],
        four[1],
        arguments[0],
        arguments[1],
        arguments[2],
        arguments[3],
        ArgumentKind::DisplayHint as u8,
        one[0],
        one[1],
        DisplayHint::LowerHex as u8,
        ArgumentKind::Bytes as u8,
        line[0],
        line[1],
    ];
    let mut words = [0; HEADER_WORDS];
    let mut word = 0;
    while word < HEADER_WORDS {
        let at = word * size_of::<u32>();
        words[word] = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        word += 1;
    }
    words
}

/// The level of the line about a packet; none where the packet goes where it should.
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
            // Both offsets are constants. Without CAP_PERFMON the verifier refuses one that is chosen at run time.
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
