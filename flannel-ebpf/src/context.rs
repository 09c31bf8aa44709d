//! The contexts that the kernel passes to the programs, as [`Frame`]s.

mod removal;
mod xdp;

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_RESET, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_csum_level, bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
    bpf_skb_change_head, bpf_skb_load_bytes, bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use flannel_common::Reason;
use flannel_common::wire::{EthernetHeader, Ipv4Header};
use flannel_ebpf::frame::{Encapsulation, FlowFrame, Frame, SendFrame};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) use xdp::Xdp;

use crate::fib::{Gateway, RawContext};
use crate::trace::TraceFrame;

/// `TC_ACT_REDIRECT`, which the redirect helpers return on success.
const REDIRECTED: i64 = 7;
/// Super-packets keep their segment size: the inner packets are as long as they were.
const KEEP_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
/// [`Skb::remove`] sets the state of checksum offload itself.
const KEEP_CHECKSUM: u64 = BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
/// The outer headers are IPv4 and UDP, so the kernel can segment a super-packet of the tunnel.
const OUTER_IPV4_UDP: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP) as u64;
/// An Ethernet header precedes the inner packet.
const INNER_ETHERNET: u64 = (EthernetHeader::LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
/// The same, with the flag that kernels since 5.13 have for it. Cards that segment tunnel packets need it.
const INNER_ETHERNET_FLAG: u64 = INNER_ETHERNET | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64;

/// The bits of a VLAN tag that name the VLAN.
const VLAN_ID: u32 = 0xfff;

/// Our XDP program writes this in front of a packet that it has decapsulated. Only an XDP program on the same interface
/// can write there.
const TOKEN: u32 = 0x666c_616e;

/// A packet at a TC hook. One that arrived by a link without Ethernet headers is read as if it had one, of which so many
/// bytes are `MISSING`: none or all.
pub(crate) struct Skb<const MISSING: u32 = 0>(TcContext);

/// A packet without an Ethernet header.
pub(crate) type BareSkb = Skb<{ EthernetHeader::LEN }>;

impl BareSkb {
    /// Gives the packet room for an Ethernet header (`bpf_skb_change_head`, 4.10).
    pub(crate) fn with_header(self) -> Result<Skb, Reason> {
        // SAFETY: the kernel gave the context.
        let code = unsafe { bpf_skb_change_head(self.raw(), EthernetHeader::LEN, 0) };
        if code == 0 { Ok(Skb(self.0)) } else { Err(Reason::AdjustFailed) }
    }
}

impl<const MISSING: u32> Skb<MISSING> {
    pub(crate) const fn new(context: TcContext) -> Self {
        Self(context)
    }

    /// Lets the kernel route the packet out of `device` and find the next hop there.
    pub(crate) fn route(&self, device: u32) -> Result<(), Reason> {
        // SAFETY: without parameters (null and zero) the helper reads only the packet.
        check_redirect(unsafe { bpf_redirect_neigh(device, ptr::null_mut(), 0, 0) })
    }

    /// Sends the packet out of `device` to the neighbour that `gateway` names. Without one, the kernel routes it.
    pub(crate) fn send_by(&self, device: u32, gateway: &Gateway) -> Result<(), Reason> {
        if gateway.family == 0 {
            return self.route(device);
        }
        let len = size_of::<Gateway>() as i32;
        let gateway = ptr::from_ref(gateway).cast_mut().cast();
        // SAFETY: the helper reads the structure, which is laid out like the kernel's.
        check_redirect(unsafe { bpf_redirect_neigh(device, gateway, len, 0) })
    }

    /// Makes the stack verify the packet's checksum itself, whatever the card reported
    /// (`__skb_reset_checksum_unnecessary`). Packets that GRO has merged stay as they are: it has marked their checksum
    /// as partial (`tcp_gro_complete`).
    pub(crate) fn distrust_checksum(&self) {
        // SAFETY: the kernel gave the context. A packet without a report of the card stays as it is.
        unsafe { bpf_csum_level(self.raw(), u64::from(BPF_CSUM_LEVEL_RESET)) };
    }

    /// Sends the packet out of `device` with the Ethernet header it has.
    pub(crate) fn transmit(&self, device: u32) -> Result<(), Reason> {
        // SAFETY: the helper takes plain numbers.
        check_redirect(unsafe { bpf_redirect(device, 0) })
    }

    /// Sends the packet, with the Ethernet header it has, to the peer device of the port `device`, in the pod.
    pub(crate) fn hand_over(&self, device: u32) -> Result<(), Reason> {
        // SAFETY: the helper takes plain numbers.
        check_redirect(unsafe { bpf_redirect_peer(device, 0) })
    }

    /// Lets the packet arrive at `device`.
    pub(crate) fn receive(&self, device: u32) -> Result<(), Reason> {
        // SAFETY: the helper takes plain numbers.
        check_redirect(unsafe { bpf_redirect(device, u64::from(BPF_F_INGRESS)) })
    }

    pub(crate) fn set_mark(&self, mark: u32) {
        self.0.set_mark(mark);
    }

    pub(crate) fn set_priority(&self, priority: u32) {
        // SAFETY: the kernel gave the context; the field is always writable.
        unsafe { (*self.raw()).priority = priority };
    }

    /// Whether the packet belongs to a VLAN on this link, whose tag is in the metadata (`skb_vlan_untag`, or the card).
    /// It is for the interface of that VLAN. VLAN 0 carries only a priority (IEEE 802.1Q).
    pub(crate) fn is_of_vlan(&self) -> bool {
        // SAFETY: the kernel gave the context; the fields are always readable.
        let (is_tagged, tag) = unsafe { ((*self.raw()).vlan_present, (*self.raw()).vlan_tci) };
        is_tagged != 0 && tag & VLAN_ID != 0
    }

    /// Whether our XDP program has decapsulated this packet.
    pub(crate) fn has_token(&self) -> bool {
        // SAFETY: the kernel gave the context; the field is always readable.
        let token = unsafe { (*self.raw()).data_meta } as usize;
        let data = self.0.data();
        // SAFETY: the verifier checks the bound.
        token + size_of::<u32>() <= data && unsafe { *(token as *const u32) } == TOKEN
    }

    /// The address of a `T` at `offset`. It is pulled into the packet's first buffer if it is not there.
    #[inline(always)]
    fn linear<T>(&self, offset: u32) -> Option<*mut T> {
        self.at(offset).or_else(|| {
            // SAFETY: the kernel gave the context. A truncated packet stays as it is.
            unsafe { bpf_skb_pull_data(self.raw(), offset + size_of::<T>() as u32) };
            self.at(offset)
        })
    }

    /// The address of a `T` at `offset`, if the packet's first buffer holds all of it.
    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<*mut T> {
        at(self.0.data(), self.0.data_end(), offset)
    }

    /// The beginning of the packet as a `T`, behind the Ethernet header that it does not have.
    #[inline(always)]
    fn load_headed<T: FromBytes>(&self) -> Result<T, Reason> {
        let mut headed = MaybeUninit::<Headed<T>>::uninit();
        let words = headed.as_mut_ptr().cast::<u16>();
        let start = words.cast::<u8>().wrapping_add(EthernetHeader::LEN as usize);
        let len = size_of::<T>() - EthernetHeader::LEN as usize;
        let packet = self.linear_bytes(len).ok_or(Reason::Truncated)?;
        // SAFETY: `headed` is large and aligned enough for the header, and for the `len` bytes behind it. Then it is
        // initialised, and every bit pattern is a `T`.
        unsafe {
            self.write_header(words);
            ptr::copy_nonoverlapping(packet, start, len);
            Ok(headed.assume_init().0)
        }
    }

    /// Writes the Ethernet header that the packet does not have: without addresses. Word by word, because zeros at once
    /// would become a call of a memory function.
    ///
    /// # Safety
    /// `words` is valid for writes of a header.
    #[inline(always)]
    unsafe fn write_header(&self, words: *mut u16) {
        // SAFETY: the caller vouches for `words`. The kernel gave the context; the field is always readable, in network
        // byte order.
        unsafe {
            for word in 0..ETHER_TYPE {
                words.add(word).write_volatile(0);
            }
            words.add(ETHER_TYPE).write_volatile((*self.raw()).protocol as u16);
        }
    }

    /// The address of the first `len` bytes, pulled into the packet's first buffer.
    #[inline(always)]
    fn linear_bytes(&self, len: usize) -> Option<*const u8> {
        let found = |context: &TcContext| {
            let start = context.data();
            (start + len <= context.data_end()).then_some(start as *const u8)
        };
        found(&self.0).or_else(|| {
            // SAFETY: the kernel gave the context. A truncated packet stays as it is.
            unsafe { bpf_skb_pull_data(self.raw(), len as u32) };
            found(&self.0)
        })
    }

    fn adjust(&self, by: i32, flags: u64) -> Result<(), Reason> {
        self.0
            .skb
            .adjust_room(by, BPF_ADJ_ROOM_MAC, KEEP_GSO | KEEP_CHECKSUM | flags)
            .map_err(|_| Reason::AdjustFailed)
    }
}

/// Where an Ethernet header has the type, in words of 16 bits.
const ETHER_TYPE: usize = EthernetHeader::LEN as usize / 2 - 1;

/// A `T` that can be written word by word.
#[repr(C, align(8))]
struct Headed<T>(T);

/// The address of a `T` at `offset` between `data` and `end`, if all of it lies there.
#[inline(always)]
const fn at<T>(data: usize, end: usize, offset: u32) -> Option<*mut T> {
    let start = data + offset as usize;
    if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
}

fn check_redirect(code: i64) -> Result<(), Reason> {
    if code == REDIRECTED { Ok(()) } else { Err(Reason::RedirectFailed) }
}

impl<const MISSING: u32> RawContext for Skb<MISSING> {
    fn raw(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }
}

impl<const MISSING: u32> Frame for Skb<MISSING> {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.0.len() + MISSING
    }

    #[inline(always)]
    fn is_super_packet(&self) -> bool {
        self.segment_len() != 0
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason> {
        if MISSING != 0 && offset == 0 {
            return self.load_headed();
        }
        let at = self.linear::<MaybeUninit<T>>(offset - MISSING).ok_or(Reason::Truncated)?;
        // SAFETY: `linear` checked the bound. The rest is as in `Xdp`.
        Ok(unsafe { at.read().assume_init() })
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: &T) -> Result<(), Reason> {
        let at = self.linear::<T>(offset).ok_or(Reason::AdjustFailed)?;
        // SAFETY: `linear` checked the bound, and `T` is plain data. The kernel made the bytes private to the packet
        // before the program began (`bpf_unclone_prologue`). The alignment is as in `Xdp`.
        unsafe { at.write(ptr::read(value)) };
        Ok(())
    }

    #[inline(always)]
    fn remove(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        self.remove_headers(encapsulation)
    }
}

impl SendFrame for Skb {
    #[inline(always)]
    fn insert(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        let room = encapsulation.overhead().cast_signed();
        let adjusted = match encapsulation {
            Encapsulation::Udp => self.adjust(room, OUTER_IPV4_UDP),
            Encapsulation::Vxlan => self
                .adjust(room, OUTER_IPV4_UDP | INNER_ETHERNET_FLAG)
                .or_else(|_| self.adjust(room, OUTER_IPV4_UDP | INNER_ETHERNET)),
        };
        adjusted.or_else(|_| {
            // The kernel does not mark a packet as tunnelled that a pod has encapsulated itself (`bpf_skb_net_grow`).
            // Only a super-packet needs the mark.
            if self.is_super_packet() { Err(Reason::LeftToDevice) } else { self.adjust(room, 0) }
        })
    }

    #[inline(always)]
    fn flow_hash(&mut self) -> u32 {
        // SAFETY: the kernel gave the context.
        unsafe { bpf_get_hash_recalc(self.raw()) }
    }
}

impl<const MISSING: u32> FlowFrame for Skb<MISSING> {
    #[inline(always)]
    fn segment_len(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).gso_size }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).ifindex }
    }

    #[inline(always)]
    fn received_by(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    #[inline(always)]
    fn mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: the helper writes one word. For interface zero it writes the MTU of the packet's own device, whatever
        // the packet's length.
        unsafe { bpf_check_mtu(self.raw().cast(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).mark }
    }

    #[inline(always)]
    fn priority(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).priority }
    }
}

impl<const MISSING: u32> TraceFrame for Skb<MISSING> {
    #[inline(always)]
    fn bytes(&self) -> u32 {
        Frame::len(self)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        FlowFrame::interface(self)
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.raw()).gso_segs }
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, len: u32) -> bool {
        if MISSING == 0 {
            // SAFETY: the kernel gave the context, and the caller vouches for `to`.
            return unsafe { bpf_skb_load_bytes(self.raw().cast(), 0, to.cast(), len) == 0 };
        }
        // Not a comparison with the header's length: the rest would be compared with zero.
        if len < EthernetHeader::LEN + Ipv4Header::LEN {
            return false;
        }
        // SAFETY: the kernel gave the context, the caller vouches for `to`, and `len` is longer than the header.
        unsafe {
            self.write_header(to.cast());
            let rest = to.add(EthernetHeader::LEN as usize);
            bpf_skb_load_bytes(self.raw().cast(), 0, rest.cast(), len - EthernetHeader::LEN) == 0
        }
    }
}
