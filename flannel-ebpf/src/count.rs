//! Counters: every packet a program sees is counted once.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use flannel_common::maps::{Count, PeerCount};
use flannel_common::{Hook, Ip4, Reason};

use crate::clock;
use crate::table::{COUNTERS, PEER_COUNTERS};

/// Zero if the programs count nothing. The loader sets it, and the verifier removes the code that cannot run
/// (`opt_remove_dead_code`).
#[unsafe(no_mangle)]
static COUNTING: Global<u8> = Global::new(1);

/// In the object's read-only data: on the stack, the compiler would clear it by a call of a memory function.
static NOTHING: &PeerCount = &PeerCount {
    sent: Count { packets: 0, bytes: 0 },
    received: Count { packets: 0, bytes: 0 },
    last_seen: 0,
    last_former: 0,
};

/// Counts a packet of `bytes` under its reason.
#[inline(always)]
pub(crate) fn add_packet(hook: Hook, reason: Reason, bytes: u32) {
    if !is_on() {
        return;
    }
    if let Some(count) = COUNTERS.get_ptr_mut(hook.slot(reason)) {
        // SAFETY: the map gave the address. The entry belongs to this CPU, and no other program preempts this one on
        // the same CPU while it adds.
        unsafe { add(&mut *count, bytes) };
    }
}

/// Counts a packet of `bytes` sent to the peer of `subnet`.
#[inline(always)]
pub(crate) fn add_sent(subnet: Ip4, bytes: u32) {
    if let Some(count) = of_peer(subnet) {
        // SAFETY: as in [`add_packet`].
        unsafe { add(&mut (*count).sent, bytes) };
    }
}

/// Counts a packet of `bytes` received from the peer of `subnet`.
#[inline(always)]
pub(crate) fn add_received(subnet: Ip4, bytes: u32) {
    if let Some(count) = of_peer(subnet) {
        // SAFETY: as in [`add_packet`].
        unsafe {
            add(&mut (*count).received, bytes);
            (*count).last_seen = clock::now();
        }
    }
}

/// Notes that a packet from the peer of `subnet` came in the former format of VXLAN. The first packet of all finds no
/// counters; there are others behind it.
#[inline(always)]
pub(crate) fn note_former(subnet: Ip4) {
    if let Some(count) = PEER_COUNTERS.get_ptr_mut(subnet) {
        // SAFETY: as in [`add_packet`].
        unsafe { (*count).last_former = clock::now() };
    }
}

/// The counters of the peer of `subnet`. They are created with its first packet: in a large network most peers never
/// have one, and an entry per CPU takes the kernel long to create.
#[inline(always)]
fn of_peer(subnet: Ip4) -> Option<*mut PeerCount> {
    if !is_on() {
        return None;
    }
    PEER_COUNTERS.get_ptr_mut(subnet).or_else(|| {
        // It fails if another CPU was faster, or without free memory. Then the next packet tries again.
        let _ = PEER_COUNTERS.insert(subnet, NOTHING, BPF_NOEXIST.into());
        PEER_COUNTERS.get_ptr_mut(subnet)
    })
}

#[inline(always)]
fn is_on() -> bool {
    COUNTING.load() != 0
}

#[inline(always)]
fn add(count: &mut Count, bytes: u32) {
    count.packets += 1;
    count.bytes += u64::from(bytes);
}
