//! Reports single packets while a trace filter is set.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use flannel_common::trace::{ADDRESSES, ARRIVED, EVENT_BYTES, Event, SNAP, TraceFilter};
use flannel_common::wire::EthernetHeader;
use flannel_common::{Hook, Ip4, Reason};

#[btf_map]
static TRACE_FILTER: Array<TraceFilter, 1> = Array::new();
#[btf_map]
static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();

/// A packet that can be reported.
pub(crate) trait TraceFrame {
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
    /// Copies the packet's first `len` bytes, at most [`TraceFrame::captured`], to `to`. Returns whether that
    /// succeeded.
    ///
    /// # Safety
    /// `to` is valid for writes of `len` bytes.
    unsafe fn copy(&self, to: *mut u8, len: u32) -> bool;
}

/// Reports a packet with the reason of its verdict, if the filter asks for it.
#[inline(always)]
pub(crate) fn report_verdict(packet: &impl TraceFrame, hook: Hook, reason: Reason) {
    if let Some(filter) = filter() {
        report(packet, filter, hook, reason.number());
    }
}

/// Reports a packet from which a program is about to remove headers, if the filter asks for it.
#[inline(always)]
pub(crate) fn report_arrival(packet: &impl TraceFrame, hook: Hook) {
    if let Some(filter) = filter() {
        report(packet, filter, hook, ARRIVED);
    }
}

/// The filter, if one is set. To look up the only entry of an array costs no call, and its first word decides.
#[inline(always)]
fn filter() -> Option<*const TraceFilter> {
    let filter = TRACE_FILTER.get_ptr(0)?;
    // SAFETY: the map gave the address. A filter that changes meanwhile is applied in part.
    if unsafe { (*filter).until } == 0 { None } else { Some(filter) }
}

/// Not inlined, so that the path that every packet takes stays short.
#[inline(never)]
fn report(packet: &impl TraceFrame, filter: *const TraceFilter, hook: Hook, reason: u32) {
    // SAFETY: as in [`filter`].
    let TraceFilter { until, reasons, hooks, every, address, arrivals } = unsafe { *filter };
    let is_selected = if reason == ARRIVED { arrivals != 0 } else { reasons >> reason & 1 == 1 };
    if !is_selected || hooks >> hook as u32 & 1 == 0 {
        return;
    }
    // SAFETY: the helper takes no arguments.
    if every > 1 && unsafe { bpf_get_prandom_u32() } % every != 0 {
        return;
    }
    // The clock comes last, because it takes longest. SAFETY: it can be read anywhere.
    let now = unsafe { bpf_ktime_get_ns() };
    if now > until {
        return;
    }
    let Some(mut entry) = EVENTS.reserve(0) else { return };
    let event: *mut Event = MaybeUninit::as_mut_ptr(&mut entry);
    let len = packet.bytes();
    let captured = packet.captured();
    // Verifiers before 6.8 learn nothing from a comparison with zero, and refuse a length that may be zero.
    let is_frame = captured >= EthernetHeader::LEN;
    // SAFETY: the entry is ours and large enough; its fields are plain data, written before they are read.
    let is_wanted = unsafe {
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
    if is_wanted { entry.submit(0) } else { entry.discard(0) }
}

/// Whether `address` sends or receives the packet that begins with `bytes`.
///
/// # Safety
/// `bytes` is valid for reads of [`SNAP`] bytes.
#[inline(always)]
unsafe fn is_of(address: Ip4, bytes: *const u8) -> bool {
    // SAFETY: the caller vouches for the bytes; the read needs no alignment.
    let [source, destination] = unsafe { ptr::read_unaligned(bytes.add(ADDRESSES).cast::<[Ip4; 2]>()) };
    address == Ip4::UNSPECIFIED || source == address || destination == address
}
