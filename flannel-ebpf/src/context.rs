//! The contexts that the kernel passes to the programs, as [`Frame`]s.

mod removal;

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_RESET, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_csum_level, bpf_fib_lookup, bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_adjust_head, bpf_xdp_adjust_meta,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use flannel_common::trace::SNAP;
use flannel_common::wire::EthernetHeader;
use flannel_common::{Ip4, Mac, Reason};
use flannel_ebpf::frame::{Encapsulation, FlowFrame, Frame, SendFrame};
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// A packet at a TC hook.
pub(crate) struct Skb(TcContext);

impl Skb {
    pub(crate) const fn new(context: TcContext) -> Self {
        Self(context)
    }

    const fn raw(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }

    /// Lets the kernel route the packet out of `device` and find the next hop there.
    pub(crate) fn route(&self, device: u32) -> Result<(), Reason> {
        // SAFETY: without parameters (null and zero) the helper reads only the packet.
        check_redirect(unsafe { bpf_redirect_neigh(device, ptr::null_mut(), 0, 0) })
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

    /// The Ethernet addresses of the next hop towards `destination` out of `device`, and of that device, where the
    /// kernel knows them.
    pub(crate) fn next_hop(&self, device: u32, source: Ip4, destination: Ip4) -> Option<(Mac, Mac)> {
        let mut lookup = MaybeUninit::uninit();
        FibLookup::fill(&mut lookup, device, source, destination);
        let len = size_of::<FibLookup>() as i32;
        // SAFETY: the helper reads and writes the structure, which is laid out like the kernel's.
        let code = unsafe {
            bpf_fib_lookup(self.raw().cast(), lookup.as_mut_ptr().cast(), len, BPF_FIB_LOOKUP_OUTPUT)
        };
        // SAFETY: `FibLookup::fill` has initialised it.
        let found = unsafe { lookup.assume_init_ref() };
        let is_known = code == i64::from(BPF_FIB_LKUP_RET_SUCCESS) && found.device == device;
        is_known.then_some((found.next_hop, found.own))
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

    fn adjust(&self, by: i32, flags: u64) -> Result<(), Reason> {
        self.0
            .skb
            .adjust_room(by, BPF_ADJ_ROOM_MAC, KEEP_GSO | KEEP_CHECKSUM | flags)
            .map_err(|_| Reason::AdjustFailed)
    }
}

/// The address of a `T` at `offset` between `data` and `end`, if all of it lies there.
#[inline(always)]
const fn at<T>(data: usize, end: usize, offset: u32) -> Option<*mut T> {
    let start = data + offset as usize;
    if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
}

/// The kernel's `struct bpf_fib_lookup`, for IPv4.
#[repr(C, align(8))]
struct FibLookup {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    len: u16,
    device: u32,
    tos: u32,
    source: [u32; 4],
    destination: [u32; 4],
    table: u32,
    own: Mac,
    next_hop: Mac,
}

impl FibLookup {
    /// Fills `lookup` in place. To return it would copy its zeros by a call of a memory function.
    #[inline(always)]
    fn fill(lookup: &mut MaybeUninit<Self>, device: u32, source: Ip4, destination: Ip4) {
        let words = lookup.as_mut_ptr().cast::<u64>();
        // SAFETY: it is eight words long, and any bytes are a valid one.
        let lookup = unsafe {
            for word in 0..size_of::<Self>() / size_of::<u64>() {
                ptr::write_volatile(words.add(word), 0);
            }
            lookup.assume_init_mut()
        };
        lookup.family = AF_INET;
        lookup.device = device;
        lookup.source[0] = u32::from_ne_bytes(source.octets());
        lookup.destination[0] = u32::from_ne_bytes(destination.octets());
    }
}

const AF_INET: u8 = 2;

fn check_redirect(code: i64) -> Result<(), Reason> {
    if code == REDIRECTED { Ok(()) } else { Err(Reason::RedirectFailed) }
}

impl Frame for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn is_super_packet(&self) -> bool {
        self.segment_len() != 0
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason> {
        let at = self.linear::<MaybeUninit<T>>(offset).ok_or(Reason::Truncated)?;
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

impl FlowFrame for Skb {
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

impl TraceFrame for Skb {
    #[inline(always)]
    fn bytes(&self) -> u32 {
        self.0.len()
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
        // SAFETY: the kernel gave the context, and the caller vouches for `to`.
        unsafe { bpf_skb_load_bytes(self.raw().cast(), 0, to.cast(), len) == 0 }
    }
}

/// Our XDP program writes this in front of a packet that it has decapsulated. Only an XDP program on the same interface
/// can write there.
const TOKEN: u32 = 0x666c_616e;

/// A packet at the XDP hook. A program is for kernels with the `HELPERS` that read packets of several buffers
/// (`bpf_xdp_load_bytes`, since 5.18) or for kernels without. Without them a packet has one buffer, and to copy it
/// needs CAP_PERFMON, which kernels as old require anyway.
pub(crate) struct Xdp<const HELPERS: bool>(XdpContext);

impl<const HELPERS: bool> Xdp<HELPERS> {
    pub(crate) const fn new(context: XdpContext) -> Self {
        Self(context)
    }

    /// The address of a `T` at `offset`, if the packet's first buffer holds all of it.
    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<*mut T> {
        at(self.0.data(), self.0.data_end(), offset)
    }

    /// Copies the packet's first `len` bytes, an even number up to [`SNAP`], without a helper. Returns whether they are
    /// there.
    ///
    /// # Safety
    /// `to` is valid for writes of `len` bytes.
    #[inline(always)]
    unsafe fn copy_first_buffer(&self, to: *mut u8, len: u32) -> bool {
        // A volatile read: the compiler must not derive the end from `len`. The verifier does not know that `len` is
        // the packet's length.
        // SAFETY: the kernel gave the context.
        let end = unsafe { ptr::read_volatile(&raw const (*self.0.ctx).data_end) } as usize;
        // Two at a time: for one byte the compiler compares its address with the end, from which old verifiers learn
        // nothing (`find_good_pkt_pointers`).
        for offset in (0..SNAP as u32).step_by(2) {
            if offset >= len {
                break;
            }
            let Some(pair) = at::<[u8; 2]>(self.0.data(), end, offset) else { return false };
            // SAFETY: `at` checked the bound, and the pair lies below `len`.
            unsafe { to.add(offset as usize).cast::<[u8; 2]>().write(pair.read()) };
        }
        true
    }

    /// Writes the token into new metadata in front of the packet.
    #[inline(always)]
    fn put_token(&self) -> Result<(), Reason> {
        // SAFETY: the kernel gave the context.
        let code = unsafe { bpf_xdp_adjust_meta(self.0.ctx, -(size_of::<u32>() as i32)) };
        let token = self.0.metadata();
        if code != 0 || token + size_of::<u32>() > self.0.data() {
            // The driver keeps no metadata: the packet continues to TC as it came.
            return Err(Reason::NotTunnel);
        }
        // SAFETY: the bound is checked above, and again by the verifier.
        unsafe { *(token as *mut u32) = TOKEN };
        Ok(())
    }
}

impl<const HELPERS: bool> Frame for Xdp<HELPERS> {
    #[inline(always)]
    fn len(&self) -> u32 {
        if HELPERS {
            // SAFETY: the kernel gave the context.
            unsafe { bpf_xdp_get_buff_len(self.0.as_ptr().cast()) as u32 }
        } else {
            (self.0.data_end() - self.0.data()) as u32
        }
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason> {
        let at = self.at::<MaybeUninit<T>>(offset).ok_or(Reason::Truncated)?;
        // SAFETY: `at` checked the bound, and every bit pattern is a `T`. Drivers put headers at even addresses, and
        // headers need no larger alignment. At other addresses the processor takes longer, or the verifier refuses the
        // program.
        Ok(unsafe { at.read().assume_init() })
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: &T) -> Result<(), Reason> {
        let at = self.at::<T>(offset).ok_or(Reason::AdjustFailed)?;
        // SAFETY: `at` checked the bound, the alignment is as in `load`, and `T` is plain data.
        unsafe { at.write(ptr::read(value)) };
        Ok(())
    }

    #[inline(always)]
    fn remove(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        self.put_token()?;
        // SAFETY: the kernel gave the context.
        let code = unsafe { bpf_xdp_adjust_head(self.0.ctx, encapsulation.overhead().cast_signed()) };
        if code == 0 { Ok(()) } else { Err(Reason::AdjustFailed) }
    }
}

impl<const HELPERS: bool> TraceFrame for Xdp<HELPERS> {
    #[inline(always)]
    fn bytes(&self) -> u32 {
        Frame::len(self)
    }

    #[inline(always)]
    fn captured(&self) -> u32 {
        let len = self.bytes();
        match (len > SNAP as u32, HELPERS) {
            (true, _) => SNAP as u32,
            (false, true) => len,
            // Without a helper, pairs are copied.
            (false, false) => len & !1,
        }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel gave the context; the field is always readable.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        0
    }

    #[inline(always)]
    unsafe fn copy(&self, to: *mut u8, len: u32) -> bool {
        if HELPERS {
            // SAFETY: the kernel gave the context, and the caller vouches for `to`.
            unsafe { bpf_xdp_load_bytes(self.0.ctx, 0, to.cast(), len) == 0 }
        } else {
            // SAFETY: the caller vouches for `to`.
            unsafe { self.copy_first_buffer(to, len) }
        }
    }
}
