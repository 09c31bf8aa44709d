//! Features that only some of the supported kernels have, and what programs do without them.

use std::sync::OnceLock;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use serde::Serialize;

/// Something that only newer kernels offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// `bpf_ktime_get_coarse_ns` (5.11). Without it programs read the slower clock.
    pub coarse_clock: bool,
    /// `bpf_check_mtu` (5.12). Without it no packet bypasses the stack: a program could not find out whether it is too
    /// long.
    pub check_mtu: bool,
    /// `bpf_xdp_get_buff_len` (5.18), and with it packets of several buffers in XDP. Without it XDP decapsulates packets
    /// of one buffer, by programs of their own.
    pub several_buffers: bool,
}

impl Support {
    /// Asks the kernel, once; what cannot be found out counts as absent. It takes the capability to load programs.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        static SUPPORT: OnceLock<Support> = OnceLock::new();
        *SUPPORT.get_or_init(|| {
            let has = |program, helper| is_helper_supported(program, helper).unwrap_or(false);
            Self {
                coarse_clock: has(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
                check_mtu: has(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_check_mtu),
                several_buffers: has(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_get_buff_len),
            }
        })
    }

    /// Whether a program of the object is for a kernel with this support: of those that decapsulate at XDP, some take
    /// helpers for packets of several buffers, and others are for kernels without them.
    #[must_use]
    pub fn takes(self, program: &str) -> bool {
        match program {
            "pod_out" | "pod_in" | "direct_out" | "direct_in" => self.check_mtu,
            "udp_xdp_linear" | "vxlan_xdp_linear" => !self.several_buffers,
            "udp_xdp" | "vxlan_xdp" | "udp_xdp_skb" | "vxlan_xdp_skb" => self.several_buffers,
            _ => true,
        }
    }
}
