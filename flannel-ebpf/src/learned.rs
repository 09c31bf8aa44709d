//! The maps of learned flows.

use core::ptr;

use aya_ebpf::btf_maps::{Array, LruHashMap, RingBuf};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::btf_map;
use flannel_common::flow::{CANDIDATE_BYTES, Connection, Entered, Flow, FlowKey, Left, MAX_FLOWS};
use flannel_ebpf::flows::{Entry, Flows};

const CAPACITY: usize = MAX_FLOWS as usize;
const RING: usize = CANDIDATE_BYTES as usize;

#[btf_map]
static FLOWS: LruHashMap<FlowKey, Flow, CAPACITY> = LruHashMap::new();
#[btf_map]
static APPROVED: LruHashMap<Connection, u64, CAPACITY> = LruHashMap::new();
#[btf_map]
static CANDIDATES: RingBuf<Connection, RING> = RingBuf::new();
#[btf_map]
static GENERATION: Array<u32, 1> = Array::new();

/// Not on the stack: so many zeros there would be written by a call.
static UNKNOWN: Flow = Flow::UNKNOWN;

/// The learned flows in the maps.
pub(crate) struct Learned;

/// A flow's entry in the map.
pub(crate) struct Slot(*mut Flow);

impl Flows for Learned {
    type Entry = Slot;

    #[inline(always)]
    fn find(&self, key: &FlowKey) -> Option<Slot> {
        FLOWS.get_ptr_mut(key).map(Slot)
    }

    #[inline(always)]
    fn begin(&self, key: &FlowKey) -> Option<Slot> {
        let unknown: &Flow = &UNKNOWN;
        FLOWS.insert(key, unknown, 0).ok()?;
        self.find(key)
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) {
        // Neither need be there.
        let _ = FLOWS.remove(key);
        let _ = APPROVED.remove(key.connection());
    }

    #[inline(always)]
    fn is_approved(&self, connection: &Connection) -> bool {
        APPROVED.get_ptr(connection).is_some()
    }

    #[inline(always)]
    fn announce(&self, connection: &Connection) {
        // Where the ring is full, nobody listens; the connection is announced again.
        let _ = CANDIDATES.output(connection, 0);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the clock can be read anywhere.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        // SAFETY: an entry of an array is always there; the daemon writes one aligned word.
        GENERATION.get_ptr(0).map_or(0, |generation| unsafe { ptr::read_volatile(generation) })
    }
}

/// The kernel may give an entry that is forgotten to another flow while a program has it in its hands. Then that
/// flow is learned wrongly for as long as a confirmation is valid at most, and only among flows of the same moment.
impl Entry for Slot {
    #[inline(always)]
    fn get(&self) -> Flow {
        // SAFETY: the map gave the address, and keeps the memory until the program ends; any bytes are a flow.
        unsafe { *self.0 }
    }

    #[inline(always)]
    fn enter(&self, entered: &Entered, in_stack: u32) {
        // SAFETY: as in `get`; nobody holds a reference.
        unsafe {
            ptr::write(&raw mut (*self.0).entered, *entered);
            ptr::write(&raw mut (*self.0).in_stack, in_stack);
        }
    }

    #[inline(always)]
    fn drain(&self, in_stack: u32) {
        // SAFETY: as in `enter`.
        unsafe { ptr::write(&raw mut (*self.0).in_stack, in_stack) };
    }

    #[inline(always)]
    fn leave(&self, left: &Left) {
        // SAFETY: as in `enter`.
        unsafe { ptr::write(&raw mut (*self.0).left, *left) };
    }
}
