//! What stands in a line that a program wrote.

use std::net::Ipv4Addr;

use flannel_common::{Hook, Reason, Verdict};
use tracing::field::{DisplayValue, display};

/// Sender and receiver of a packet.
pub(super) type Ends = (Ipv4Addr, Ipv4Addr);

/// A packet, and what became of it.
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
    /// Reads the words of a line. Programs write numbers, for they cannot choose between texts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [hook, reason, interface, bytes, outer_from, outer_to, from, to] = words[..] else { return None };
        let hook: u32 = hook.parse().ok()?;
        let reason: u32 = reason.parse().ok()?;
        Some(Self {
            hook: *Hook::ALL.iter().find(|known| **known as u32 == hook)?,
            reason: *Reason::ALL.iter().find(|known| known.number() == reason)?,
            interface: interface.parse().ok()?,
            bytes: bytes.parse().ok()?,
            outer: ends(outer_from, outer_to)?,
            inner: ends(from, to)?,
        })
    }

    /// Whether the packet was dropped; else it was left to the stack.
    pub(super) fn is_dropped(&self) -> bool {
        self.reason.verdict() == Verdict::Drop
    }
}

/// Two addresses; no ends, where neither is specified.
fn ends(from: &str, to: &str) -> Option<Option<Ends>> {
    let ends: Ends = (from.parse().ok()?, to.parse().ok()?);
    Some((ends != (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)).then_some(ends))
}

/// As fields of a message; those that are not there are left out.
pub(super) fn shown(ends: Option<Ends>) -> (Option<DisplayValue<Ipv4Addr>>, Option<DisplayValue<Ipv4Addr>>) {
    (ends.map(|(from, _)| display(from)), ends.map(|(_, to)| display(to)))
}

#[cfg(test)]
mod tests {
    use flannel_common::{Hook, Reason};
    use rstest::rstest;

    use super::Line;

    #[test]
    fn a_packet_out_of_the_tunnel() {
        let line = Line::parse("1 7 2 148 192.168.77.9 192.168.77.12 10.5.1.2 10.5.2.2").unwrap();
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
        let line = Line::parse("6 41 9 1514 0.0.0.0 0.0.0.0 10.5.1.2 10.5.2.2").unwrap();
        assert!(line.outer.is_none() && line.inner.is_some());
        assert!(!line.is_dropped());
    }

    #[rstest]
    #[case::nothing("")]
    #[case::too_few("1 7 2 148 192.168.77.9 192.168.77.12 10.5.1.2")]
    #[case::another_hook("99 7 2 148 0.0.0.0 0.0.0.0 10.5.1.2 10.5.2.2")]
    #[case::another_reason("1 63 2 148 0.0.0.0 0.0.0.0 10.5.1.2 10.5.2.2")]
    #[case::no_address("1 7 2 148 0.0.0.0 0.0.0.0 10.5.1 10.5.2.2")]
    fn what_no_program_of_ours_writes(#[case] text: &str) {
        assert_eq!(Line::parse(text), None);
    }
}
