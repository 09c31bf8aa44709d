//! The maps of learned flows.

use core::ptr;

use aya_ebpf::btf_maps::{Array, LruHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use flannel_common::Mac;
use flannel_common::flow::{
    BypassEntry, CANDIDATE_BYTES, Connection, Flow, FlowKey, IngressState, KnownFlow, MAX_FLOWS, OVER,
    PLACES, ticks,
};
use flannel_common::maps::Port;
use flannel_ebpf::flows::{Entry, Flows};

use crate::key::Key;
use crate::{clock, node, table};

const CAPACITY: usize = MAX_FLOWS as usize;
const RING: usize = CANDIDATE_BYTES as usize;

/// An array, not one of the kernel's hash maps: every packet looks up a flow, and a lookup in an array costs no call.
#[btf_map]
static FLOWS: Array<KnownFlow, CAPACITY> = Array::new();
#[btf_map]
static APPROVED: LruHashMap<Connection, u64, CAPACITY> = LruHashMap::new();
#[btf_map]
static CANDIDATES: RingBuf<Connection, RING> = RingBuf::new();
#[btf_map]
static GENERATION: Array<u32, 1> = Array::new();

/// The table of learned flows, in the maps.
pub(crate) struct FlowTable;

/// The place of a flow in the map.
pub(crate) struct Place(*mut KnownFlow);

impl Flows for FlowTable {
    type Entry = Place;

    #[inline(always)]
    fn find(&self, key: &FlowKey) -> Option<Place> {
        let first = key.place(node().flow_seed);
        for place in first..first + PLACES {
            let place = Place(FLOWS.get_ptr_mut(place)?);
            if place.is_of(key) {
                return Some(place);
            }
        }
        None
    }

    #[inline(always)]
    fn begin(&self, key: &FlowKey, now: u64) -> Option<Place> {
        let first = key.place(node().flow_seed);
        let (mut free, mut at) = (None, now.saturating_sub(OVER));
        for place in first..first + PLACES {
            let known = Place(FLOWS.get_ptr_mut(place)?);
            if known.is_of(key) {
                free = Some(place);
                break;
            }
            if known.entered_at() < at {
                (free, at) = (Some(place), known.entered_at());
            }
        }
        let place = Place(FLOWS.get_ptr_mut(free?)?);
        place.begin(key);
        Some(place)
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) {
        if let Some(place) = self.find(key) {
            place.begin(&FlowKey::default());
        }
        // The connection need not be there.
        let _ = APPROVED.remove(Key::from(&key.connection()));
    }

    #[inline(always)]
    fn is_approved(&self, connection: &Connection) -> bool {
        APPROVED.get_ptr(Key::from(connection)).is_some()
    }

    #[inline(always)]
    fn is_behind(&self, port: u32, station: Mac) -> bool {
        table::port(Port { bridge: port, mac: station, reserved: 0 }) == Some(port)
    }

    #[inline(always)]
    fn announce(&self, connection: &Connection) {
        // A full ring has no reader. The connection is announced again.
        let _ = CANDIDATES.output(Key::from(connection), 0);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        clock::now()
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        // SAFETY: an entry of an array always exists, and the daemon writes one aligned word.
        GENERATION.get_ptr(0).map_or(0, |generation| unsafe { ptr::read_volatile(generation) })
    }
}

impl Place {
    #[inline(always)]
    fn entered_at(&self) -> u64 {
        // SAFETY: the map gave the address, and any bytes are a flow.
        unsafe { (*self.0).flow.entered.at }
    }

    /// Gives the place to a flow of which nothing is known.
    #[inline(always)]
    fn begin(&self, key: &FlowKey) {
        // By words: the compiler would clear the whole by a call of a memory function. The old flow's key comes first.
        let words = self.0.cast::<u64>();
        for word in 0..size_of::<KnownFlow>() / size_of::<u64>() {
            // SAFETY: the words lie within the flow, and nothing holds a reference to it.
            unsafe { ptr::write_volatile(words.add(word), 0) };
        }
        let [ends, rest] = key.words();
        // SAFETY: a flow begins with its key, of two words.
        unsafe {
            ptr::write_volatile(words, ends);
            ptr::write_volatile(words.add(1), rest);
        }
    }
}

/// A place is given to another flow only after everything known of its flow has expired. Two CPUs can give the same
/// place to two flows that begin at the same moment. What either learns there is valid no longer than a confirmation.
impl Entry for Place {
    #[inline(always)]
    fn get(&self) -> Flow {
        // SAFETY: the map gave the address, and any bytes are a flow.
        unsafe { (*self.0).flow }
    }

    #[inline(always)]
    fn is_of(&self, key: &FlowKey) -> bool {
        let [ends, rest] = key.words();
        let words = self.0.cast::<u64>();
        // SAFETY: a flow begins with its key, of two words. Each call reads them again.
        unsafe { ptr::read_volatile(words) == ends && ptr::read_volatile(words.add(1)) == rest }
    }

    #[inline(always)]
    fn enter(&self, entered: &IngressState, in_stack: u16, behind: u16) {
        // SAFETY: as in `get`, and nothing holds a reference to it.
        unsafe {
            ptr::write(&raw mut (*self.0).flow.entered, *entered);
            ptr::write(&raw mut (*self.0).flow.in_stack, in_stack);
            ptr::write(&raw mut (*self.0).flow.behind, behind);
        }
    }

    #[inline(always)]
    fn contest(&self, now: u64) {
        // Nothing else writes that word while the place belongs to the flow: a CPU that has not seen it yet cannot take
        // it back. It comes before the other way is written.
        // SAFETY: as in `enter`.
        unsafe {
            ptr::write_volatile(&raw mut (*self.0).flow.contested, ticks(now).max(1));
            ptr::write_volatile(&raw mut (*self.0).flow.left.until, 0);
        }
    }

    #[inline(always)]
    fn drain(&self, in_stack: u16) {
        // SAFETY: as in `enter`.
        unsafe { ptr::write(&raw mut (*self.0).flow.in_stack, in_stack) };
    }

    #[inline(always)]
    fn finish_sample(&self) {
        // A sample that another CPU has taken meanwhile is lost; there is another one soon.
        // SAFETY: as in `enter`.
        unsafe { ptr::write(&raw mut (*self.0).flow.entered.fingerprint, 0) };
    }

    #[inline(always)]
    fn leave(&self, left: &BypassEntry) {
        // SAFETY: as in `enter`. The entry is not valid while it is written.
        unsafe {
            let until = &raw mut (*self.0).flow.left.until;
            ptr::write_volatile(until, 0);
            ptr::write(&raw mut (*self.0).flow.left, BypassEntry { until: 0, ..*left });
            ptr::write_volatile(until, left.until);
        }
    }
}
