//! A packet at the XDP hook.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;
use flannel_common::Reason;
use flannel_common::trace::SNAP;
use flannel_ebpf::frame::{Encapsulation, Frame};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{TOKEN, at};
use crate::trace::TraceFrame;

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
        // A volatile read: the compiler must not keep one end for all, which it would extend by shifts, and the verifier
        // allows no arithmetic with the end.
        // SAFETY: the kernel gave the context.
        let end = unsafe { ptr::read_volatile(&raw const (*self.0.ctx).data_end) } as usize;
        at(self.0.data(), end, offset)
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
