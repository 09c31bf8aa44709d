//! The content of a line that a program wrote.

use std::net::Ipv4Addr;

use flannel_common::line::Line as Written;
use flannel_common::{Hook, Ip4, Reason, Verdict};
use tracing::field::{DisplayValue, display};
use zerocopy::FromBytes as _;

/// Sender and receiver of a packet.
pub(super) type Ends = (Ipv4Addr, Ipv4Addr);

/// A packet with its verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) hook: Hook,
    pub(super) reason: Reason,
    /// Interface index of the hook.
    pub(super) interface: u32,
    /// Length of the packet, with its Ethernet header.
    pub(super) bytes: u32,
    /// Of the tunnel packet, where the packet was one.
    pub(super) outer: Option<Ends>,
    /// Of the packet within it, or of the packet itself.
    pub(super) inner: Option<Ends>,
}

impl Line {
    /// Reads a line as aya-log shows it: its bytes in hexadecimal.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let written = Written::read_from_bytes(&hex::decode(text).ok()?).ok()?;
        Some(Self {
            hook: *Hook::ALL.iter().find(|known| **known as u32 == written.hook)?,
            reason: *Reason::ALL.iter().find(|known| known.number() == written.reason)?,
            interface: written.interface,
            bytes: written.bytes,
            outer: ends(written.outer_source, written.outer_destination),
            inner: ends(written.source, written.destination),
        })
    }

    /// Whether the packet was dropped; else it was left to the stack.
    pub(super) fn is_dropped(&self) -> bool {
        self.reason.verdict() == Verdict::Drop
    }
}

/// Two addresses; no ends, where neither is specified.
fn ends(from: Ip4, to: Ip4) -> Option<Ends> {
    ((from, to) != (Ip4::UNSPECIFIED, Ip4::UNSPECIFIED)).then(|| (from.into(), to.into()))
}

/// As fields of a message; those that are not there are left out.
pub(super) fn shown(ends: Option<Ends>) -> (Option<DisplayValue<Ipv4Addr>>, Option<DisplayValue<Ipv4Addr>>) {
    (ends.map(|(from, _)| display(from)), ends.map(|(_, to)| display(to)))
}

#[cfg(test)]
mod tests {
    use flannel_common::line::Line as Written;
    use flannel_common::{Hook, Ip4, Reason};
    use rstest::rstest;
    use zerocopy::IntoBytes as _;

    use super::Line;

    const FROM: Ip4 = Ip4::from_octets([10, 5, 1, 2]);
    const TO: Ip4 = Ip4::from_octets([10, 5, 2, 2]);
    const DROPPED: Written = Written {
        hook: Hook::Decap as u32,
        reason: Reason::InnerSourceMismatch.number(),
        interface: 2,
        bytes: 148,
        outer_source: Ip4::from_octets([192, 168, 77, 9]),
        outer_destination: Ip4::from_octets([192, 168, 77, 12]),
        source: FROM,
        destination: TO,
    };

    fn parse(written: Written) -> Option<Line> {
        Line::parse(&hex::encode(written.as_bytes()))
    }

    #[test]
    fn a_packet_out_of_the_tunnel() {
        let line = parse(DROPPED).unwrap();
        let address = |text: &str| text.parse().unwrap();
        let expected = Line {
            hook: Hook::Decap,
            reason: Reason::InnerSourceMismatch,
            interface: 2,
            bytes: 148,
            outer: Some((address("192.168.77.9"), address("192.168.77.12"))),
            inner: Some((address("10.5.1.2"), address("10.5.2.2"))),
        };
        assert_eq!(line, expected);
        assert!(line.is_dropped());
    }

    #[test]
    fn a_packet_that_is_in_no_other() {
        let written = Written {
            reason: Reason::TooLong.number(),
            outer_source: Ip4::UNSPECIFIED,
            outer_destination: Ip4::UNSPECIFIED,
            ..DROPPED
        };
        let line = parse(written).unwrap();
        assert!(line.outer.is_none() && line.inner.is_some());
        assert!(!line.is_dropped());
    }

    #[rstest]
    #[case::another_hook(Written { hook: 99, ..DROPPED })]
    #[case::another_reason(Written { reason: 63, ..DROPPED })]
    fn what_no_program_of_ours_writes(#[case] written: Written) {
        assert_eq!(parse(written), None);
    }

    #[test]
    fn what_is_no_line() {
        let whole = hex::encode(DROPPED.as_bytes());
        for text in ["", "no line", &whole[1..], &whole[2..]] {
            assert_eq!(Line::parse(text), None, "{text:?}");
        }
    }
}
