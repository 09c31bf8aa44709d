//! Going over to another format of VXLAN: packets are taken in the former one, too, and each peer is sent to in the one
//! that it takes, until every peer has gone over.

use std::collections::BTreeMap;
use std::time::Duration;

use flannel_model::error::Chain;
use flannel_model::vxlan::{Formats, VxlanFormat};
use flannel_observe::Limitation;
use flannel_registry::LeaseSource;
use ipnetwork::IpNetwork;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Loop;
use crate::kernel::{Heard, Kernel, KernelError};
use crate::peers::{Diff, Peer};

/// For how long nobody may have used the former format before it is given up. By then a host whose connection to the
/// registry works has heard that this one has gone over, and sends in the present one.
const QUIET: Duration = Duration::from_secs(60);
/// How often to look whether that is so.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before what was in the way of another format is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// So many peers are named one by one.
const FEW: usize = 10;

/// What is told and timed while there are two formats.
pub(super) struct GoingOver {
    /// When the former format was last seen in use.
    used: Instant,
    /// Since when programs tell in which format packets arrive.
    since: Instant,
    /// When to look again.
    due: Option<Instant>,
    limitation: Limitation,
}

impl GoingOver {
    pub(super) fn new(limitation: Limitation) -> Self {
        Self { used: Instant::now(), since: Instant::now(), due: Some(Instant::now()), limitation }
    }

    fn begin(&mut self) {
        (self.used, self.since) = (Instant::now(), Instant::now());
        self.due = Some(Instant::now() + LOOK);
    }

    /// Notes that the former format was in use so long ago, if it ever was.
    fn note_use(&mut self, ago: Option<Duration>) {
        let used = ago.and_then(|ago| Instant::now().checked_sub(ago));
        self.used = used.map_or(self.used, |used| used.max(self.used));
    }

    /// When to look whether the former format is still needed.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    fn tell(&self, told: Vec<String>) {
        let line = told.join("; ");
        if self.limitation.set(told) {
            match line.as_str() {
                "" => info!(
                    "every peer has gone over to the present format of VXLAN: the former one is given up"
                ),
                line => warn!("{line}"),
            }
        }
    }
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// Makes a step on the way to the format that is configured, if there is one to make. What is in the way is told, and
    /// all stays as it was.
    pub(super) async fn go_over(&mut self) {
        let (before, next) = (self.configuration.formats(), self.configuration.next_formats());
        let Some(next) = next.filter(|next| before != Some(*next)) else { return };
        let prepared = self.keeper.prepare(&*self.configuration.backend_with(next)).await;
        match prepared {
            Ok(()) => {
                info!(
                    "packets are taken as {} from now on, and as before until every peer has gone over",
                    next.present
                );
                self.configuration.set_formats(next);
                self.going_over.begin();
            }
            Err(error) => {
                self.going_over.tell(vec![obstacle(next.present, &error)]);
                self.going_over.due = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Looks whether the former format is still needed, and tells who uses it.
    pub(super) async fn follow_formats(&mut self) {
        self.going_over.due = None;
        let Some(formats) = self.configuration.formats() else { return };
        if self.configuration.next_formats() != Some(formats) {
            self.go_over().await;
            if self.configuration.formats() != Some(formats) {
                self.take_effect().await;
                return;
            }
        }
        let Some(former) = formats.former else { return };
        self.going_over.due = Some(Instant::now() + LOOK);
        let heard = self.keeper.heard().unwrap_or_default();
        self.hear(formats, &heard).await;
        let is_former = |peer: &&Peer| peer.format(formats) == former;
        let users: Vec<Peer> =
            self.peers.peers().chain(self.deletion_guard.held()).filter(is_former).copied().collect();
        let last = heard.iter().filter_map(|heard| heard.former).min();
        self.going_over.note_use(last);
        if !users.is_empty() || !self.has_listed || self.registry_is_away {
            self.going_over.note_use(Some(Duration::ZERO));
        }
        if self.going_over.used.elapsed() < QUIET {
            let wanted = self.configuration.wanted_format();
            self.going_over.tell(vec![told(formats.present, former, wanted, &users)]);
            return;
        }
        self.configuration.set_formats(formats.settled());
        self.going_over.tell(Vec::new());
        // The configuration may ask for the next one already.
        self.go_over().await;
        self.take_effect().await;
    }

    /// Takes note of the format in which peers send whose leases do not say in which they take packets: that of stock
    /// flannel, which sends and takes in one.
    async fn hear(&mut self, formats: Formats, heard: &[Heard]) {
        let since = self.going_over.since.elapsed();
        let came = |heard: &Heard| Some((heard.subnet, format_of(formats, heard, since)?));
        let diff = self.peers.hear(heard.iter().filter_map(came));
        if !diff.is_empty() {
            let mut touched = Vec::new();
            self.want(diff, &mut touched).await;
            self.keeper.apply(touched).await;
        }
    }
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// Takes over in which format an earlier daemon had peers sent to whose leases leave that open. `diff` is what was
    /// just found out of them.
    pub(super) fn resume_formats(&mut self, mut diff: Diff) -> Diff {
        if !self.configuration.has_former() {
            return diff;
        }
        let heard = self.keeper.heard().unwrap_or_default();
        let resumed = self.peers.hear(heard.iter().filter_map(|heard| Some((heard.subnet, heard.sent?))));
        let resumed: BTreeMap<IpNetwork, Peer> =
            resumed.changed.into_iter().map(|(_, after)| (after.subnet, after)).collect();
        let changed = diff.changed.iter_mut().map(|(_, after)| after);
        for peer in diff.added.iter_mut().chain(changed) {
            *peer = resumed.get(&peer.subnet).copied().unwrap_or(*peer);
        }
        diff
    }
}

/// The format in which packets of a peer arrive, if any has in the time `since` two formats are told apart.
fn format_of(formats: Formats, heard: &Heard, since: Duration) -> Option<VxlanFormat> {
    let Formats { present, former: Some(former) } = formats else { return None };
    let last = heard.last.filter(|last| *last < since)?;
    // Packets may overtake one another, and clocks are coarse.
    let is_former = heard.former.is_some_and(|ago| ago <= last + Duration::from_secs(1));
    Some(if is_former { former } else { present })
}

fn obstacle(next: VxlanFormat, error: &KernelError) -> String {
    format!(
        "the configuration asks for {next}, and the one of before stays in force: {}; trying again",
        Chain(error)
    )
}

fn told(present: VxlanFormat, former: VxlanFormat, wanted: Option<VxlanFormat>, users: &[Peer]) -> String {
    let addresses: Vec<String> = users.iter().take(FEW).map(|peer| peer.public_ip.to_string()).collect();
    let more = users.len().saturating_sub(FEW);
    let who = match (users.len(), more) {
        (0, _) => "no peer takes it any more, and it is given up a minute after the last packet".to_owned(),
        (_, 0) => format!("peers still take it alone: {}", addresses.join(", ")),
        (_, more) => format!("peers still take it alone: {} and {more} more", addresses.join(", ")),
    };
    let remedy = if users.is_empty() { "" } else { "; stock flannel goes over when it is restarted" };
    let next = wanted.filter(|wanted| *wanted != present);
    let next = next.map_or_else(String::new, |next| format!("; {next} is configured, and comes after that"));
    format!("{former} is still served beside {present}: {who}{remedy}{next}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flannel_common::Vni;
    use flannel_model::vxlan::{Announced, Formats, VxlanFormat};
    use rstest::rstest;

    use super::{Heard, format_of, told};
    use crate::peers::Peer;

    const BEFORE: VxlanFormat = VxlanFormat { vni: Vni::new(1).unwrap(), port: 8472 };
    const AFTER: VxlanFormat = VxlanFormat { vni: Vni::new(1).unwrap(), port: 4789 };

    #[rstest]
    #[case::nothing_since(100, None, None)]
    #[case::nothing_since_but_former_ones_before(100, Some(100), None)]
    #[case::only_present_ones(3, None, Some(AFTER))]
    #[case::only_former_ones(3, Some(3), Some(BEFORE))]
    #[case::gone_over(3, Some(20), Some(AFTER))]
    fn packets_tell_which_format_a_host_speaks(
        #[case] last: u64,
        #[case] former: Option<u64>,
        #[case] format: Option<VxlanFormat>,
    ) {
        let formats = Formats::only(BEFORE).toward(AFTER);
        let [last, since] = [last, 60].map(Duration::from_secs);
        let heard = Heard {
            subnet: "10.5.2.0/24".parse().unwrap(),
            last: Some(last),
            former: former.map(Duration::from_secs),
            sent: None,
        };
        assert_eq!(format_of(formats, &heard, since), format);
    }

    #[test]
    fn who_uses_the_former_one_is_told() {
        let peer = |last| Peer {
            subnet: "10.5.2.0/24".parse().unwrap(),
            public_ip: [192, 168, 77, last].into(),
            vtep_mac: None,
            announced: Announced::default(),
            heard: None,
        };
        let third = VxlanFormat { port: 1, ..AFTER };
        assert_eq!(
            told(AFTER, BEFORE, Some(third), &[peer(12), peer(13)]),
            "VNI 1 at UDP port 8472 is still served beside VNI 1 at UDP port 4789: peers still take it alone: \
             192.168.77.12, 192.168.77.13; stock flannel goes over when it is restarted; VNI 1 at UDP port 1 is \
             configured, and comes after that"
        );
        let many: Vec<Peer> = (1..=12).map(peer).collect();
        assert!(told(AFTER, BEFORE, None, &many).contains("192.168.77.10 and 2 more; stock"));
        assert!(told(AFTER, BEFORE, Some(AFTER), &[]).ends_with("a minute after the last packet"));
    }
}
