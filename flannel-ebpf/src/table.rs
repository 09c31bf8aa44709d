//! The maps, and the table of peers over them.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, PerCpuHashMap};
use aya_ebpf::macros::btf_map;
use flannel_common::Ip4;
use flannel_common::maps::{
    COUNTER_SLOTS, Count, MAX_PEERS, MAX_PORTS, NextHop, Node, Peer, PeerCount, Port,
};
use flannel_ebpf::peers::Peers;

use crate::clock;
use crate::key::Key;

const PEERS_CAPACITY: usize = MAX_PEERS as usize;
const PORTS_CAPACITY: usize = MAX_PORTS as usize;
const COUNTERS_CAPACITY: usize = COUNTER_SLOTS as usize;
/// `BPF_F_NO_PREALLOC`: per-CPU entries for the present peers, not for all possible ones.
const NO_PREALLOC: usize = 1;

#[btf_map]
static PEERS: HashMap<Ip4, Peer, PEERS_CAPACITY> = HashMap::new();
#[btf_map]
static SOURCES: HashMap<Ip4, u32, PEERS_CAPACITY> = HashMap::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Count, COUNTERS_CAPACITY> = PerCpuArray::new();
#[btf_map]
pub(crate) static PEER_COUNTERS: PerCpuHashMap<Ip4, PeerCount, PEERS_CAPACITY, NO_PREALLOC> =
    PerCpuHashMap::new();
#[btf_map]
static PORTS: HashMap<Port, u32, PORTS_CAPACITY> = HashMap::new();
#[btf_map]
static NODE_INFO: Array<Node, 1> = Array::new();

/// The table of peers in the maps.
pub(crate) struct Table;

impl Peers for Table {
    #[inline(always)]
    fn peer(&self, subnet: Ip4) -> Option<Peer> {
        // SAFETY: the entry is copied at once. The daemon replaces whole entries, and the kernel keeps a deleted one
        // until the program ends.
        unsafe { PEERS.get(subnet) }.copied()
    }

    #[inline(always)]
    fn is_source(&self, address: Ip4) -> bool {
        SOURCES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        let seconds = clock::now() / 1_000_000_000;
        (seconds as u32).max(1)
    }

    #[inline(always)]
    fn note_whole(&self, subnet: Ip4, public_ip: Ip4, whole: u32) {
        if let Some(peer) = PEERS.get_ptr_mut(subnet) {
            // SAFETY: as in [`Table::peer`]. Each access is one word. If the daemon replaces the entry meanwhile, the
            // peer becomes one of which nothing is known, which is correct too.
            unsafe {
                if (*peer).public_ip == public_ip {
                    (*peer).whole = whole;
                }
            }
        }
    }
}

/// Writes [`Peer::next_hop`] of the peer of `subnet`, if `public_ip` is its address. A CPU that reads it meanwhile may
/// see parts of the old and of the new one. Then a flow can be learned with the mixture, and its packets are lost for
/// as long as that is valid.
#[inline(always)]
pub(crate) fn note_next_hop(subnet: Ip4, public_ip: Ip4, hop: &NextHop) {
    let Some(peer) = PEERS.get_ptr_mut(subnet) else { return };
    // SAFETY: as in [`Table::note_whole`].
    let peer = unsafe { &mut *peer };
    if peer.public_ip == public_ip {
        peer.next_hop = *hop;
    }
}

/// The bridge port behind which `pod` lives.
#[inline(always)]
pub(crate) fn port(pod: Port) -> Option<u32> {
    // SAFETY: as in [`Table::peer`].
    unsafe { PORTS.get(Key::from(&pod)) }.copied()
}

/// Keeps [`NODE_INFO`] in the object. Only readers of its pin use it.
#[inline(always)]
pub(crate) fn keep_node_info() {
    let _ = NODE_INFO.get_ptr(0);
}
