//! The kernel's routing table, with its rules (`bpf_fib_lookup`).

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use flannel_common::wire::PROTOCOL_UDP;
use flannel_common::{Ip4, Mac};

/// Interface index of the loopback interface (`LOOPBACK_IFINDEX`). The kernel looks the routes of its own packets up as
/// if they came from there (`ip_route_output_key_hash_rcu`).
pub(crate) const LOOPBACK: u32 = 1;

const AF_INET: u8 = 2;
/// `BPF_FIB_LOOKUP_MARK`, since 6.10.
const LOOKUP_MARK: u32 = 1 << 5;
const EINVAL: i64 = -22;

/// A packet at a TC hook.
pub(crate) trait RawContext {
    /// As the kernel gave it to the program.
    fn raw(&self) -> *mut __sk_buff;
}

/// What the kernel is asked.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    /// Interface index of where packets come from: [`LOOPBACK`], or a VRF (`l3mdev_update_flow`).
    pub from: u32,
    /// Source address.
    pub source: Ip4,
    /// Destination address.
    pub destination: Ip4,
    /// UDP destination port.
    pub port: u16,
    /// Bytes that the way must be able to carry; zero for any. Before 5.12 the kernel does not look at it.
    pub len: u16,
    /// Mark of the packet; zero for none.
    pub mark: u32,
}

/// The way the kernel would send a packet.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// How far the kernel tells it.
    pub outcome: Outcome,
    /// Interface index of where it leaves.
    pub device: u32,
    /// Ethernet address of the next hop; zero if that is not known yet, or on a link without such addresses.
    pub destination: Mac,
    /// That of the interface.
    pub source: Mac,
    /// The next hop.
    pub gateway: Gateway,
}

/// How far the kernel tells the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As far as its next hop.
    Known,
    /// Not at all: the interface that packets come from does not forward.
    Disabled,
    /// There is one, of which the kernel does not tell enough.
    Untold,
    /// There is none.
    NoRoute,
}

/// An address on the link: the kernel's `struct bpf_redir_neigh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Gateway {
    /// Its address family; zero if there is none, so that the kernel routes the packet.
    pub family: u32,
    /// The address, IPv4 in the first word.
    pub address: [u32; 4],
}

impl Gateway {
    /// None, for a packet to `destination`. The words are no constants: zeros the compiler would write by a call of a
    /// memory function.
    #[inline(always)]
    pub(crate) const fn none(destination: Ip4) -> Self {
        Self { family: 0, address: [u32::from_ne_bytes(destination.octets()); 4] }
    }
}

/// The kernel's `struct bpf_fib_lookup`.
#[repr(C, align(8))]
struct Lookup {
    family: u8,
    protocol: u8,
    source_port: u16,
    port: u16,
    len: u16,
    device: u32,
    tos: u32,
    source: [u32; 4],
    destination: [u32; 4],
    table: u32,
    own: Mac,
    next_hop: Mac,
}

/// Asks for the way of a packet.
#[inline(always)]
pub(crate) fn ask(skb: &impl RawContext, question: &Question) -> Answer {
    let mut lookup = MaybeUninit::uninit();
    let mut code = look_up(skb, &mut lookup, question, question.mark);
    let mut is_by_mark = true;
    if question.mark != 0 && code == EINVAL {
        code = look_up(skb, &mut lookup, question, 0);
        is_by_mark = false;
    }
    // SAFETY: `look_up` has initialised it.
    let found = unsafe { lookup.assume_init_ref() };
    let gateway = match is_by_mark {
        true => Gateway { family: found.family.into(), address: found.destination },
        // The kernel did not look at the mark, and does so when it routes the packet.
        false => Gateway::none(question.destination),
    };
    // The kernel writes the addresses last, after it has found the neighbour: without one they are zero.
    let (destination, source) = (found.next_hop, found.own);
    Answer { outcome: outcome(code, found, question), device: found.device, destination, source, gateway }
}

/// Whether a packet between these addresses that arrives at `device` is for this host itself, or nowhere.
#[inline(always)]
pub(crate) fn is_for_host(skb: &impl RawContext, device: u32, source: Ip4, destination: Ip4) -> bool {
    let mut lookup = MaybeUninit::uninit();
    let question = Question { from: device, source, destination, port: 0, len: 0, mark: 0 };
    look_up(skb, &mut lookup, &question, 0) == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
}

#[inline(always)]
const fn outcome(code: i64, found: &Lookup, question: &Question) -> Outcome {
    const KNOWN: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const DISABLED: i64 = BPF_FIB_LKUP_RET_FWD_DISABLED as i64;
    const TUNNELLED: i64 = BPF_FIB_LKUP_RET_UNSUPP_LWT as i64;
    const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
    match code {
        KNOWN => Outcome::Known,
        // Before 5.12 the kernel does not name the interface of a neighbour that it does not know.
        NO_NEIGHBOUR if found.device != question.from => Outcome::Known,
        // Without a length to look at, the kernel compares that of the packet as it is, and last of all.
        TOO_LONG if question.len == 0 => Outcome::Known,
        NO_NEIGHBOUR | TOO_LONG | TUNNELLED => Outcome::Untold,
        DISABLED => Outcome::Disabled,
        _ => Outcome::NoRoute,
    }
}

#[inline(always)]
fn look_up(skb: &impl RawContext, lookup: &mut MaybeUninit<Lookup>, question: &Question, mark: u32) -> i64 {
    fill(lookup, question, mark);
    let flags = if mark == 0 { 0 } else { LOOKUP_MARK };
    let lookup = lookup.as_mut_ptr();
    let len = size_of::<Lookup>() as i32;
    // SAFETY: the helper reads and writes the structure, which is laid out like the kernel's.
    unsafe { bpf_fib_lookup(skb.raw().cast(), lookup.cast(), len, flags) }
}

/// Fills `lookup` in place. To return it would copy its zeros by a call of a memory function. By whole words: without
/// `CAP_PERFMON` the verifier of Linux 6.1 refuses parts of a word that holds another value
/// (`check_stack_write_fixed_off`).
#[inline(always)]
fn fill(lookup: &mut MaybeUninit<Lookup>, question: &Question, mark: u32) {
    let address = |address: Ip4| u64::from(u32::from_ne_bytes(address.octets()));
    let kind = u64::from(AF_INET) | u64::from(PROTOCOL_UDP) << 8;
    let wanted = u64::from(question.port.to_be()) << 32 | u64::from(question.len) << 48;
    // The mark lies where the kernel writes Ethernet addresses.
    let (device, mark) = (u64::from(question.from), u64::from(mark) << 32);
    let filled =
        [kind | wanted, device, address(question.source), 0, address(question.destination), 0, mark, 0];
    let words = lookup.as_mut_ptr().cast::<u64>();
    for (word, value) in filled.into_iter().enumerate() {
        // SAFETY: the structure is eight words long, in the byte order of the target, and any bytes are a valid one.
        unsafe { ptr::write_volatile(words.add(word), value) };
    }
}
