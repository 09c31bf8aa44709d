//! Tells of single packets while somebody asks.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use flannel_common::trace::{ADDRESSES, ARRIVED, EVENT_BYTES, Event, SNAP, TraceFilter};
use flannel_common::wire::EthernetHeader;
use flannel_common::{Hook, Ip4, Reason};

#[btf_map]
static QUESTION: Array<TraceFilter, 1> = Array::new();
#[btf_map]
static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();

/// A packet that can be told of.
pub(crate) trait Witnessed {
    /// Bytes from the Ethernet header to the end.
    fn bytes(&self) -> u32;
    /// Interface index of the hook.
    fn interface(&self) -> u32;
    /// How many segments a super-packet stands for.
    fn segments(&self) -> u32;
    /// How many of the first bytes can be copied: all, or [`SNAP`].
    #[inline(always)]
    fn captured(&self) -> u32 {
        let len = self.bytes();
        if len > SNAP as u32 { SNAP as u32 } else { len }
    }
    /// Copies the packet's first `len` bytes, at most [`Witnessed::captured`], to `to`; tells whether that succeeded.
    ///
    /// # Safety
    /// `to` is good for `len` bytes.
    unsafe fn copy(&self, to: *mut u8, len: u32) -> bool;
}

/// Tells what becomes of a packet, if that is asked for.
#[inline(always)]
pub(crate) fn decided(packet: &impl Witnessed, hook: Hook, reason: Reason) {
    if let Some(question) = question() {
        tell(packet, question, hook, reason.number());
    }
}

/// Tells of a packet that a program is about to take headers off, if that is asked for.
#[inline(always)]
pub(crate) fn arrived(packet: &impl Witnessed, hook: Hook) {
    if let Some(question) = question() {
        tell(packet, question, hook, ARRIVED);
    }
}

/// What is asked, if somebody asks. An array's only entry costs no call, and its first word settles the matter.
#[inline(always)]
fn question() -> Option<*const TraceFilter> {
    let question = QUESTION.get_ptr(0)?;
    // SAFETY: the map gave the address. A question that changes meanwhile is answered in part.
    if unsafe { (*question).until } == 0 { None } else { Some(question) }
}

/// Not a part of the programs' straight way, which is entered with every packet.
#[inline(never)]
fn tell(packet: &impl Witnessed, question: *const TraceFilter, hook: Hook, reason: u32) {
    // SAFETY: as in [`question`].
    let TraceFilter { until, reasons, hooks, every, address, arrivals } = unsafe { *question };
    let is_asked = if reason == ARRIVED { arrivals != 0 } else { reasons >> reason & 1 == 1 };
    if !is_asked || hooks >> hook as u32 & 1 == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    if every > 1 && unsafe { bpf_get_prandom_u32() } % every != 0 {
        return;
    }
    // The clock is what takes longest. SAFETY: it can be read anywhere.
    let now = unsafe { bpf_ktime_get_ns() };
    if now > until {
        return;
    }
    let Some(mut entry) = EVENTS.reserve(0) else { return };
    let event: *mut Event = MaybeUninit::as_mut_ptr(&mut entry);
    let len = packet.bytes();
    let captured = packet.captured();
    // Verifiers before 6.8 learn nothing from a comparison with zero, and take a length that may be zero for an error.
    let is_frame = captured >= EthernetHeader::LEN;
    // SAFETY: the entry is ours and large enough; its fields are plain data, written before they are read.
    let is_told = unsafe {
        (*event).at = now;
        (*event).hook = hook as u32;
        (*event).reason = reason;
        (*event).interface = packet.interface();
        (*event).len = len;
        (*event).captured = captured;
        (*event).segments = packet.segments();
        let bytes = (&raw mut (*event).bytes).cast::<u8>();
        is_frame && packet.copy(bytes, captured) && is_of(address, bytes)
    };
    if is_told { entry.submit(0) } else { entry.discard(0) }
}

/// Whether `address` sends or receives the packet that begins with `bytes`.
///
/// # Safety
/// `bytes` is good for [`SNAP`] bytes.
#[inline(always)]
unsafe fn is_of(address: Ip4, bytes: *const u8) -> bool {
    // SAFETY: the caller's; no alignment is asked for.
    let [source, destination] = unsafe { ptr::read_unaligned(bytes.add(ADDRESSES).cast::<[Ip4; 2]>()) };
    address == Ip4::UNSPECIFIED || source == address || destination == address
}
