//! How much of a link is payload of TCP: what headers leave.

/// Bits per second of the link.
pub(super) const LINK: f64 = 100e6;
/// Bytes of a link's packet at most.
const LINK_MTU: u32 = 1500;
/// Of each Ethernet frame: preamble 8, header 14, checksum 4, gap 12.
const FRAME: u32 = 38;
/// Of each segment: IPv4 20, TCP 20, and its timestamps 12.
const SEGMENT: u32 = 52;

/// What bounds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Bytes that a tunnel puts before a packet.
    pub(super) tunnel: u32,
    /// Bytes of payload in a full frame.
    pub(super) payload: u32,
}

impl Bound {
    /// That of containers whose packets have up to `mtu` bytes.
    pub(super) const fn of(mtu: u32) -> Self {
        Self { tunnel: LINK_MTU - mtu, payload: mtu - SEGMENT }
    }

    /// Bits of payload per second.
    pub(super) fn rate(self) -> f64 {
        LINK * f64::from(self.payload) / f64::from(LINK_MTU + FRAME)
    }

    /// How it comes about.
    pub(super) fn shown(self) -> String {
        let tunnel = if self.tunnel == 0 { String::new() } else { format!(" - {}", self.tunnel) };
        format!("({LINK_MTU}{tunnel} - {SEGMENT}) / ({LINK_MTU} + {FRAME})")
    }
}

#[cfg(test)]
mod tests {
    use super::Bound;

    #[test]
    fn headers_bound_the_rate() {
        for (mtu, shown, rate) in [
            (1500, "(1500 - 52) / (1500 + 38)", "94.15"),
            (1472, "(1500 - 28 - 52) / (1500 + 38)", "92.33"),
            (1450, "(1500 - 50 - 52) / (1500 + 38)", "90.90"),
        ] {
            let bound = Bound::of(mtu);
            assert_eq!(
                (bound.shown(), format!("{:.2}", bound.rate() / 1e6)),
                (shown.to_owned(), rate.to_owned())
            );
        }
    }
}
