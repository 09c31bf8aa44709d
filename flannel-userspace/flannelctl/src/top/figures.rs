//! What was counted between two looks.

use flannel_common::maps::Count;
use flannel_common::{Hook, Reason, Verdict};

use crate::counters::Counts;
use crate::peers::PeerRate;
use crate::units::per_second;

/// Everything per second.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) peers: Vec<PeerRate>,
    pub(super) drops: Vec<Drop>,
    pub(super) bypass: Bypass,
}

/// Packets dropped for one reason at one hook.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Drop {
    pub(super) hook: &'static str,
    pub(super) reason: &'static str,
    pub(super) help: &'static str,
    pub(super) packets_per_second: u64,
    /// Since the maps were made.
    pub(super) packets: u64,
}

impl Drop {
    /// All that ever were, the most frequent ones of late first.
    pub(super) fn all(total: &Counts, since: &Counts, seconds: f64) -> Vec<Self> {
        let both = total.iter().zip(since.iter());
        let is_drop =
            |(total, _): &(&Counted, &Counted)| total.1.verdict() == Verdict::Drop && total.2.packets > 0;
        let mut drops: Vec<Self> = both
            .filter(is_drop)
            .map(|((hook, reason, total), (_, _, since))| Self {
                hook: hook.label(),
                reason: reason.label(),
                help: reason.help(),
                packets_per_second: per_second(since.packets, seconds),
                packets: total.packets,
            })
            .collect();
        drops.sort_by_key(|drop| std::cmp::Reverse((drop.packets_per_second, drop.packets)));
        drops
    }
}

type Counted = (Hook, Reason, Count);

/// Packets between pods and peers: those that bypassed the stack, and those that went through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bypass {
    pub(super) sent: Share,
    pub(super) received: Share,
}

/// Packets that bypassed the stack, out of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    bypassed: u64,
    all: u64,
}

impl Share {
    fn add(&mut self, packets: u64, is_bypassed: bool) {
        self.all += packets;
        if is_bypassed {
            self.bypassed += packets;
        }
    }

    /// For people; nothing while no packet passes.
    pub(super) fn text(self) -> String {
        match (self.bypassed as u128 * 1000).checked_div(self.all.into()) {
            Some(share) => format!("{}.{} %", share / 10, share % 10),
            None => "-".to_owned(),
        }
    }
}

impl Bypass {
    /// A packet is counted once at the hooks named here: at the pod's port if it bypasses, else where it leaves the stack
    /// or enters it.
    pub(super) fn of(since: &Counts) -> Self {
        let mut bypass = Self::default();
        for (hook, reason, Count { packets, .. }) in since.iter() {
            match (hook, reason) {
                (Hook::PodOut, Reason::Bypassed | Reason::ToSegment) => bypass.sent.add(*packets, true),
                (Hook::Encap, Reason::Forwarded | Reason::ToSegment)
                | (Hook::DirectOut, Reason::Confirmed | Reason::Unconfirmed) => {
                    bypass.sent.add(*packets, false);
                }
                (Hook::Decap | Hook::DirectIn, Reason::Bypassed) => bypass.received.add(*packets, true),
                (Hook::Decap, Reason::Forwarded | Reason::HandedOver)
                | (Hook::DirectIn, Reason::Learning | Reason::FlowEdge | Reason::TooLong) => {
                    bypass.received.add(*packets, false);
                }
                _ => {}
            }
        }
        bypass
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::maps::Count;
    use flannel_common::{Hook, Reason};

    use super::{Bypass, Counts, Drop};

    fn counts(counts: &[(Hook, Reason, u64)]) -> Counts {
        let count = |(hook, reason, packets): &(Hook, Reason, u64)| {
            (*hook, *reason, Count { packets: *packets, bytes: packets * 100 })
        };
        Counts::from(counts.iter().map(count).collect::<Vec<_>>())
    }

    #[test]
    fn the_bypass_has_a_share_of_each_direction() {
        let since = counts(&[
            (Hook::PodOut, Reason::Bypassed, 900),
            (Hook::PodOut, Reason::ToStack, 77),
            (Hook::Encap, Reason::Forwarded, 100),
            (Hook::Decap, Reason::Bypassed, 1),
            (Hook::Decap, Reason::Forwarded, 2),
            (Hook::Decap, Reason::NotTunnel, 5000),
        ]);
        let bypass = Bypass::of(&since);
        assert_eq!((bypass.sent.text(), bypass.received.text()), ("90.0 %".to_owned(), "33.3 %".to_owned()));
        assert_eq!(Bypass::default().sent.text(), "-");
    }

    #[test]
    fn drops_of_late_come_first() {
        let kinds = |first, second| {
            counts(&[
                (Hook::Encap, Reason::Forwarded, 5),
                (Hook::Encap, Reason::NoPeer, first),
                (Hook::Decap, Reason::Fragment, second),
                (Hook::Decap, Reason::Truncated, 0),
            ])
        };
        let drops = Drop::all(&kinds(1000, 10), &kinds(0, 6), 2.0);
        let told: Vec<_> =
            drops.iter().map(|drop| (drop.reason, drop.packets_per_second, drop.packets)).collect();
        assert_eq!(told, [("fragment_unsupported", 3, 10), ("no_peer", 0, 1000)]);
    }
}
