//! Removes the outer headers of an skb.

use aya_ebpf::bindings::BPF_CSUM_LEVEL_DEC;
use aya_ebpf::helpers::generated::bpf_csum_level;
use flannel_common::Reason;
use flannel_common::wire::{EthernetHeader, Ipv4Header};
use flannel_ebpf::frame::{Encapsulation, Frame as _};

use super::Skb;
use crate::fib::{self, RawContext as _};
use crate::node;

/// `BPF_F_ADJ_ROOM_DECAP_L4_UDP` of newer kernels: a super-packet is not marked as tunnelled any more
/// (`iptunnel_pull_offloads` does the same). Others refuse flags that they do not know.
const LEAVES_TUNNEL: u64 = 1 << 10;

impl<const MISSING: u32> Skb<MISSING> {
    /// Removes the outer headers, if not only the kernel's device can do that right: then it returns
    /// [`Reason::LeftToDevice`].
    #[inline(always)]
    pub(super) fn remove_headers(&self, encapsulation: Encapsulation) -> Result<(), Reason> {
        // A card that does not know tunnels refuses a super-packet with the mark of one, if the host translates it and
        // sends it on. Where programs cannot take the mark off, the kernel's device can.
        if encapsulation == Encapsulation::Vxlan
            && self.is_super_packet()
            && self.is_for_host(EthernetHeader::LEN + encapsulation.overhead())?
        {
            return self.shrink(encapsulation, LEAVES_TUNNEL).map_err(|_| Reason::LeftToDevice);
        }
        self.remove_for_pod(encapsulation)
    }

    /// Removes the outer headers of a packet for a pod. Where the kernel cannot take the mark of a tunnel from a
    /// super-packet, it stays. To a socket of the pod it does not matter.
    #[inline(always)]
    pub(crate) fn remove_for_pod(&self, encapsulation: Encapsulation) -> Result<(), Reason> {
        if self.is_super_packet() {
            self.shrink(encapsulation, LEAVES_TUNNEL).or_else(|_| self.shrink(encapsulation, 0))
        } else {
            self.shrink(encapsulation, 0)
        }
    }

    #[inline(always)]
    fn shrink(&self, encapsulation: Encapsulation, flags: u64) -> Result<(), Reason> {
        self.adjust(-encapsulation.overhead().cast_signed(), flags)?;
        // The outer UDP checksum is consumed. What hardware or GRO reported of the inner one stays valid
        // (`__skb_decr_checksum_unnecessary`).
        // SAFETY: the kernel gave the context. For a packet without such a report the helper changes nothing.
        unsafe { bpf_csum_level(self.raw(), u64::from(BPF_CSUM_LEVEL_DEC)) };
        Ok(())
    }

    /// Whether the packet whose IPv4 header is at `offset` is for this host itself, or nowhere.
    #[inline(always)]
    fn is_for_host(&self, offset: u32) -> Result<bool, Reason> {
        let ip: Ipv4Header = self.load(offset)?;
        Ok(fib::is_for_host(self, node().device, ip.source(), ip.destination()))
    }
}
