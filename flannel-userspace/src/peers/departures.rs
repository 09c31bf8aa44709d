//! Peers that vanish in a swarm. One that leaves is let go at once; but when a large part of the cluster vanishes
//! within seconds, somebody more likely deleted leases than hosts, and the hosts are still there. Then nobody is let
//! go for a while, in which leases can come back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipnetwork::Ipv4Network;
use tokio::time::Instant;

use super::Peer;

/// Departures within this time count as one swarm.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer are never a swarm, however small the cluster.
const SMALLEST_SWARM: usize = 10;

/// When departures are a swarm, and for how long it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restraint {
    /// Share of the peers, in percent, more of which make a swarm.
    pub threshold: u8,
    /// For how long nobody is let go then; zero to let go at once, always.
    pub hold: Duration,
}

/// Who left lately, and who is held.
#[derive(Debug)]
pub struct Departures {
    restraint: Restraint,
    recent: VecDeque<(Instant, Peer)>,
    held: BTreeMap<Ipv4Network, Peer>,
    until: Option<Instant>,
}

/// What is to be done about departures.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Peers to let go.
    pub let_go: Vec<Peer>,
    /// Peers to bring back that were let go before it became clear that they left in a swarm.
    pub bring_back: Vec<Peer>,
    /// How many are held from now on; zero where none or already some were.
    pub holding: usize,
}

impl Departures {
    /// Nobody has left yet.
    #[must_use]
    pub const fn new(restraint: Restraint) -> Self {
        Self { restraint, recent: VecDeque::new(), held: BTreeMap::new(), until: None }
    }

    /// Decides about peers that left `remaining` others behind.
    pub fn depart(&mut self, gone: Vec<Peer>, remaining: usize) -> Verdict {
        let now = Instant::now();
        if self.until.is_some() {
            self.held.extend(gone.into_iter().map(|peer| (peer.subnet, peer)));
            return Verdict::default();
        }
        while self.recent.front().is_some_and(|(when, _)| now.duration_since(*when) > WINDOW) {
            self.recent.pop_front();
        }
        if !self.is_swarm(gone.len(), remaining) {
            self.recent.extend(gone.iter().map(|peer| (now, *peer)));
            return Verdict { let_go: gone, ..Verdict::default() };
        }
        let bring_back: Vec<Peer> = self.recent.drain(..).map(|(_, peer)| peer).collect();
        self.held =
            gone.into_iter().chain(bring_back.iter().copied()).map(|peer| (peer.subnet, peer)).collect();
        self.until = Some(now + self.restraint.hold);
        Verdict { bring_back, holding: self.held.len(), ..Verdict::default() }
    }

    fn is_swarm(&self, gone: usize, remaining: usize) -> bool {
        let gone = gone + self.recent.len();
        let limit = usize::from(self.restraint.threshold) * (gone + remaining);
        !self.restraint.hold.is_zero() && gone >= SMALLEST_SWARM && gone * 100 > limit
    }

    /// Hears that a subnet is leased again: whoever held it before is neither held nor brought back.
    pub fn arrive(&mut self, subnet: Ipv4Network) {
        self.held.remove(&subnet);
        self.recent.retain(|(_, peer)| peer.subnet != subnet);
        if self.held.is_empty() {
            self.until = None;
        }
    }

    /// The peers that are held.
    pub fn held(&self) -> impl Iterator<Item = &Peer> {
        self.held.values()
    }

    /// When those that are held are to be let go.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Lets go whoever is held.
    pub fn let_go(&mut self) -> Vec<Peer> {
        self.until = None;
        std::mem::take(&mut self.held).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Departures, Peer, Restraint, Verdict};

    const HOLD: Duration = Duration::from_secs(60);

    fn departures() -> Departures {
        Departures::new(Restraint { threshold: 30, hold: HOLD })
    }

    fn peers(subnets: std::ops::Range<u8>) -> Vec<Peer> {
        let peer = |third| Peer {
            subnet: format!("10.5.{third}.0/24").parse().unwrap(),
            public_ip: [192, 168, 77, third].into(),
            vtep_mac: None,
        };
        subnets.map(peer).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_let_go_at_once() {
        let mut departures = departures();
        assert_eq!(departures.depart(peers(0..9), 0).let_go, peers(0..9), "a small cluster may end");
        advance(Duration::from_secs(11)).await;
        assert_eq!(departures.depart(peers(20..50), 70).let_go.len(), 30, "30 % are no swarm");
        assert_eq!(departures.until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_swarm_is_held_and_then_let_go() {
        let mut departures = departures();
        let verdict = departures.depart(peers(0..40), 60);
        assert_eq!(verdict, Verdict { holding: 40, ..Verdict::default() });
        assert_eq!(departures.until(), Some(Instant::now() + HOLD));
        assert_eq!(departures.depart(peers(40..41), 59), Verdict::default(), "later ones are held as well");
        assert_eq!(departures.let_go(), peers(0..41));
        assert_eq!(departures.until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_by_one_is_a_swarm_too() {
        let mut departures = departures();
        for third in 0..30 {
            assert_eq!(departures.depart(peers(third..third + 1), 99 - usize::from(third)).let_go.len(), 1);
        }
        let verdict = departures.depart(peers(30..31), 69);
        assert_eq!((verdict.holding, verdict.bring_back), (31, peers(0..30)));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_departures_are_no_swarm() {
        let mut departures = departures();
        for third in 0..90 {
            advance(Duration::from_secs(1)).await;
            assert_eq!(departures.depart(peers(third..third + 1), 99 - usize::from(third)).let_go.len(), 1);
            if third == 19 {
                break;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_not_held() {
        let mut departures = departures();
        departures.depart(peers(0..40), 0);
        for peer in peers(0..39) {
            departures.arrive(peer.subnet);
        }
        assert_eq!(departures.held().copied().collect::<Vec<_>>(), peers(39..40));
        departures.arrive(peers(39..40)[0].subnet);
        assert_eq!(departures.until(), None, "nothing is left to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_of_zero_holds_nobody() {
        let mut departures = Departures::new(Restraint { threshold: 30, hold: Duration::ZERO });
        assert_eq!(departures.depart(peers(0..40), 0).let_go.len(), 40);
    }
}
