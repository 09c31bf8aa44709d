//! Which hook decapsulates under `--datapath-hook=auto`, and why.
//!
//! The rule knows what `docs/benchmarks` measured on a link like a real wire: with `udp`, whose packets no kernel
//! receiver merges, XDP carries half as much again for two thirds of the CPU time; with `vxlan`, whose packets the
//! kernel's own device merges before TC, it carries a third less. In doubt TC decapsulates.

use std::fmt;
use std::path::Path;

use flannel_net::{XdpSupport, xdp_support};

use super::inspect::pinned_programs;
use crate::{DatapathError, Format};

/// The largest packet that surely fits one buffer: a page of 4096 bytes, less what drivers keep before and behind.
const ONE_BUFFER: u32 = 3000;

/// What the underlay's interface offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What the kernel says of it.
    pub support: XdpSupport,
    /// Whether somebody else's XDP program is attached.
    pub is_taken: bool,
}

/// Which hook decapsulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decapsulation {
    /// Native XDP.
    Xdp,
    /// Traffic control: TCX or clsact.
    Tc,
}

impl fmt::Display for Decapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        })
    }
}

/// A hook and why it is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub by: Decapsulation,
    /// Why, for people.
    pub because: &'static str,
}

impl Offer {
    /// Asks the kernel what `interface` offers; an XDP program pinned below `pin_dir` is ours. An interface that is gone
    /// or cannot be asked offers nothing.
    ///
    /// # Errors
    /// A pin cannot be read.
    pub fn of(interface: u32, pin_dir: &Path) -> Result<Self, DatapathError> {
        let support = xdp_support(interface).ok().flatten().unwrap_or_default();
        let is_taken = match support.attached {
            Some(attached) => !pinned_programs(pin_dir)?
                .iter()
                .any(|pinned| pinned.interface == interface && pinned.by.program_id() == Some(attached.id)),
            None => false,
        };
        Ok(Self { support, is_taken })
    }
}

/// The hook that decapsulates packets of this format. The same offer always gets the same answer, so that a restart
/// finds the programs in their places.
#[must_use]
pub fn choose(offer: &Offer, format: Format) -> Choice {
    let Offer { support, is_taken } = offer;
    let tc = |because| Choice { by: Decapsulation::Tc, because };
    match (format, support.native) {
        (Format::Vxlan, _) => tc("the kernel's vxlan device merges packets before TC, not before XDP"),
        _ if *is_taken => tc("another XDP program is attached"),
        (_, None) => tc("the kernel does not say whether the driver takes native XDP (6.3)"),
        (_, Some(false)) => tc("the driver takes no native XDP"),
        _ if !support.is_card => tc("a virtual device carries super-packets, which native XDP would end"),
        _ if !support.several_buffers && support.mtu > ONE_BUFFER => {
            tc("the driver hands XDP one buffer, and packets of this MTU may need several")
        }
        (Format::Udp { .. }, Some(true)) => Choice {
            by: Decapsulation::Xdp,
            because: "the driver takes native XDP, after which packets of udp are merged",
        },
    }
}

#[cfg(test)]
mod tests {
    use flannel_net::XdpSupport;
    use flannel_net::namespace::{add_interface, in_namespace};
    use rstest::rstest;

    use super::{Choice, Decapsulation, Offer, choose};
    use crate::Format;

    const UDP: Format = Format::Udp { segmented: 7 };
    const TC: Decapsulation = Decapsulation::Tc;
    const XDP: Decapsulation = Decapsulation::Xdp;
    /// What many network cards offer.
    const CARD: XdpSupport = XdpSupport {
        native: Some(true),
        several_buffers: true,
        mtu: 1500,
        transmit_queues: 4,
        is_card: true,
        attached: None,
    };

    #[rstest]
    #[case::card(CARD, false, UDP, XDP, "merged")]
    #[case::card_with_vxlan(CARD, false, Format::Vxlan, TC, "vxlan device")]
    #[case::taken(CARD, true, UDP, TC, "another XDP program")]
    #[case::old_kernel(XdpSupport { native: None, ..CARD }, false, UDP, TC, "does not say")]
    #[case::old_driver(XdpSupport { native: Some(false), ..CARD }, false, UDP, TC, "takes no native XDP")]
    #[case::virtual_device(XdpSupport { is_card: false, ..CARD }, false, UDP, TC, "virtual device")]
    #[case::long_packets(XdpSupport { mtu: 9000, ..CARD }, false, UDP, XDP, "merged")]
    #[case::one_buffer(XdpSupport { several_buffers: false, ..CARD }, false, UDP, XDP, "merged")]
    #[case::long_packets_in_one_buffer(
        XdpSupport { several_buffers: false, mtu: 9000, ..CARD }, false, UDP, TC, "one buffer"
    )]
    #[case::nothing(XdpSupport::default(), false, UDP, TC, "does not say")]
    fn rule(
        #[case] support: XdpSupport,
        #[case] is_taken: bool,
        #[case] format: Format,
        #[case] by: Decapsulation,
        #[case] because: &str,
    ) {
        let choice = choose(&Offer { support, is_taken }, format);
        assert_eq!(choice.by, by);
        assert!(choice.because.contains(because), "{}", choice.because);
    }

    #[test]
    fn virtual_cables_are_left_to_tc() {
        in_namespace(async |netlink| {
            add_interface("eth0", "192.168.77.11/24");
            let cable = netlink.link("eth0").await.unwrap().unwrap().index;
            let pins = tempfile::tempdir().unwrap();
            let offer = Offer::of(cable, pins.path()).unwrap();
            assert!(!offer.is_taken, "{offer:?}");
            let Choice { by, because } = choose(&offer, UDP);
            assert_eq!((by, because.contains("virtual device")), (TC, true), "{because}");
        });
    }
}
