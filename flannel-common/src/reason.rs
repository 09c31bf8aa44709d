//! Why a packet was forwarded, passed on or dropped: one table, from which the counters, the metrics,
//! the command line and the documentation take their names.

use core::fmt;

/// What happens to a packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Encapsulated or decapsulated and sent on by the program.
    Forward,
    /// Left untouched to the next program and the network stack.
    Pass,
    /// Discarded.
    Drop,
}

impl Verdict {
    /// The name used in metrics and by the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// Declares [`Reason`] with everything that is derived from it. Numbers are stable and never reused:
/// they index the counters in the kernel.
macro_rules! reasons {
    ($($number:literal $name:ident $label:literal $verdict:ident $help:literal,)*) => {
        /// Why a packet met its [`Verdict`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $help] $name = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name used in metrics and by the command line.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }

            /// What happens to a packet with this reason.
            #[must_use]
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }
        }
    };
}

reasons! {
    0 Forwarded "forwarded" Forward "The packet was forwarded by the program.",
    1 Truncated "truncated" Drop "The packet ends before its headers do.",
    2 BadIpHeader "bad_ip_header" Drop "The inner IPv4 header is malformed.",
    4 NotOurVni "not_our_vni" Pass "The VXLAN network identifier is another network's.",
    5 BadVxlanFlags "bad_vxlan_flags" Drop "The VXLAN header does not mark its network identifier as valid.",
    6 UnknownOuterSource "unknown_outer_source" Drop "The outer source is not the address of a leased peer.",
    7 InnerSourceMismatch "inner_source_mismatch" Drop "The inner source is outside the subnet leased by the outer source.",
    8 InnerDestinationNotLocal "inner_dst_not_local" Drop "The inner destination is outside this host's subnet.",
    10 InnerNotIpv4 "inner_not_ip" Drop "The inner packet is not IPv4.",
    11 BadInnerMac "bad_inner_mac" Drop "The inner frame is addressed to another Ethernet address than this VTEP's.",
    12 NoPeer "no_peer" Drop "The destination is in no subnet leased by a peer.",
    17 TtlExceeded "ttl_exceeded" Drop "The packet arrived with no hops left.",
    18 Fragment "fragment_unsupported" Drop "The outer packet is a fragment, which the udp backend cannot reassemble.",
    19 EcnIllegal "ecn_illegal" Drop "The outer header reports congestion, but the inner transport cannot (RFC 6040).",
    21 AdjustFailed "adjust_failed" Drop "The kernel did not make or remove the room for the outer headers.",
    22 RedirectFailed "redirect_failed" Drop "The kernel refused to redirect the packet.",
    27 NotGuarded "not_guarded" Drop "The kernel decapsulated the packet by itself, so the guard did not see its outer source.",
    28 NotTunnel "not_tunnel" Pass "The packet is no tunnel packet for this host.",
    29 NotIpv4 "not_ipv4" Pass "The packet is not IPv4, the only protocol the tunnel carries.",
    30 ForeignPeer "foreign_peer" Pass "The destination belongs to no leased peer; the kernel's own tables decide.",
    31 Reassemble "reassemble" Pass "The outer packet is a first fragment; the kernel's vxlan device decapsulates the packet once it is reassembled.",
    32 UnknownPort "unknown_port" Pass "The bridge port of the destination is not known; the bridge decides.",
    35 Guarded "guarded" Pass "The packet passed the guard and enters the host by the flannel device.",
    36 ToSegment "to_segment" Forward "The packet goes through the segmenter first, because the peer does not take it whole.",
    34 HandedOver "handed_over" Forward "The packet was decapsulated by XDP and is handed to the flannel device.",
    37 Bypassed "bypassed" Forward "The packet bypassed bridge, routing and netfilter, which change nothing of its flow.",
    38 ToStack "to_stack" Pass "The packet is of no flow that can bypass the stack.",
    39 Learning "learning" Pass "The packet goes through the stack, to learn whether its flow can bypass it.",
    40 FlowEdge "flow_edge" Pass "A TCP connection begins or ends with the packet.",
    41 TooLong "too_long" Pass "The packet is longer than the MTU ahead: the stack answers it.",
    42 Confirmed "confirmed" Pass "The packet left the stack as it entered: its flow can bypass the stack.",
    43 Unconfirmed "unconfirmed" Pass "The packet did not leave the stack as one that entered, or must not bypass it.",
    44 LeftToDevice "left_to_device" Pass "The kernel's vxlan device encapsulates or decapsulates it: a super-packet of another transport than TCP, or for the host itself, or a packet for a peer by a route that programs cannot follow.",
    45 TunnelFromPod "tunnel_from_pod" Drop "A pod sent a packet to the tunnel's port of a peer: it would arrive as one of this host's.",
    47 NoRoute "no_route" Drop "The host's routing table has no way to the peer's public address.",
    46 SpoofedSource "spoofed_source" Drop "The source is the address of a pod from which no packet comes this way.",
    50 LeftToPolicy "left_to_policy" Pass "A policy of IPsec concerns tunnel packets: the kernel's vxlan device takes the packet, so that the policy is obeyed.",
    51 AgainstPolicy "against_policy" Drop "A policy of IPsec concerns tunnel packets, and the backend has no device of the kernel by which it would be obeyed.",
    33 NotDecapsulated "not_decapsulated" Pass "The packet did not come out of the tunnel.",
}

impl Reason {
    /// Counter slots per [`Hook`]; every number of a reason is below it.
    pub const SLOTS: u32 = 64;

    /// The number of this reason.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Where a program sees packets. Each packet a program sees is counted once under its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// TC egress of the flannel device: encapsulation.
    Encap = 0,
    /// TC ingress of the underlay interface: decapsulation.
    Decap = 1,
    /// XDP of the underlay interface: decapsulation before GRO.
    Xdp = 2,
    /// TC ingress of the flannel device: nothing enters that the guard did not see.
    Device = 3,
    /// TC egress of a bridge: decapsulated super-packets go to the pod's port whole.
    Bridge = 4,
    /// TC ingress of the segmenter's exit: encapsulation of packets that were cut and finished there.
    Segmented = 5,
    /// TC ingress of a pod's port: what the pod sends.
    PodOut = 6,
    /// TC egress of a pod's port: what the pod gets from the stack.
    PodIn = 7,
    /// TC egress of the underlay interface: packets to peers that a route leads to.
    DirectOut = 8,
    /// TC ingress of the underlay interface: packets from peers that a route leads to.
    DirectIn = 9,
}

impl Hook {
    /// Every hook, in the order of the numbers.
    pub const ALL: &[Self] = &[
        Self::Encap,
        Self::Decap,
        Self::Xdp,
        Self::Device,
        Self::Bridge,
        Self::Segmented,
        Self::PodOut,
        Self::PodIn,
        Self::DirectOut,
        Self::DirectIn,
    ];

    /// The name used in metrics and by the command line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::Xdp => "xdp",
            Self::Device => "device",
            Self::Bridge => "bridge",
            Self::Segmented => "segmented",
            Self::PodOut => "pod_out",
            Self::PodIn => "pod_in",
            Self::DirectOut => "direct_out",
            Self::DirectIn => "direct_in",
        }
    }

    /// The slot that counts `reason` at this hook.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self, reason: Reason) -> u32 {
        self as u32 * Reason::SLOTS + reason.number()
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::{Hook, Reason};

    #[test]
    fn numbers_and_labels_are_unique_and_fit_the_slots() {
        let numbers: BTreeSet<u32> = Reason::ALL.iter().map(|reason| reason.number()).collect();
        let labels: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(numbers.len(), Reason::ALL.len());
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(numbers.iter().all(|number| *number < Reason::SLOTS));
    }

    #[test]
    fn slots_of_hooks_do_not_overlap() {
        let slots: BTreeSet<u32> =
            Hook::ALL.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| hook.slot(*reason))).collect();
        assert_eq!(slots.len(), Hook::ALL.len() * Reason::ALL.len());
    }
}
