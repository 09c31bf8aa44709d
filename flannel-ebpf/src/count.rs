//! Counters: every packet a program sees is counted once.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use flannel_common::maps::Count;
use flannel_common::{Hook, Ip4, Reason};

use crate::table::{COUNTERS, PEER_COUNTERS};

/// Counts a packet of `bytes` under its reason.
#[inline(always)]
pub(crate) fn packet(hook: Hook, reason: Reason, bytes: u32) {
    if let Some(count) = COUNTERS.get_ptr_mut(hook.slot(reason)) {
        // SAFETY: the map gave the address; the entry is this CPU's own, and a program is not preempted by
        // another one on the same CPU while it adds.
        unsafe { add(&mut *count, bytes) };
    }
}

/// Counts a packet of `bytes` sent to the peer of `subnet`.
#[inline(always)]
pub(crate) fn sent(subnet: Ip4, bytes: u32) {
    if let Some(count) = PEER_COUNTERS.get_ptr_mut(subnet) {
        // SAFETY: as in [`packet`].
        unsafe { add(&mut (*count).sent, bytes) };
    }
}

/// Counts a packet of `bytes` received from the peer of `subnet`.
#[inline(always)]
pub(crate) fn received(subnet: Ip4, bytes: u32) {
    if let Some(count) = PEER_COUNTERS.get_ptr_mut(subnet) {
        // SAFETY: as in [`packet`]; the clock can be read anywhere.
        unsafe {
            add(&mut (*count).received, bytes);
            (*count).last_seen = bpf_ktime_get_coarse_ns();
        }
    }
}

#[inline(always)]
fn add(count: &mut Count, bytes: u32) {
    count.packets += 1;
    count.bytes += u64::from(bytes);
}
