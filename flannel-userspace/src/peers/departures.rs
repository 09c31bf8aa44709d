//! Peers that vanish. One that leaves is let go after a moment, for a host whose lease was deleted writes it again at
//! once. But when a large part of the cluster vanishes within seconds, somebody more likely deleted leases than hosts,
//! and the hosts are still there. Then nobody is let go for a while, in which leases can come back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipnetwork::Ipv4Network;
use tokio::time::Instant;

use super::Peer;

/// For so long the lease of a peer that left may come back as if it had never been away.
const GRACE: Duration = Duration::from_secs(1);
/// Departures within this time count as one swarm.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer are never a swarm, however small the cluster.
const SMALLEST_SWARM: usize = 10;

/// When departures are a swarm, and for how long it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restraint {
    /// Share of the peers, in percent, more of which make a swarm.
    pub threshold: u8,
    /// For how long nobody is let go then; zero to hold no swarm.
    pub hold: Duration,
}

/// Who left lately, and who is held.
#[derive(Debug)]
pub struct Departures {
    restraint: Restraint,
    /// Who left within the window, in that order; nobody while a swarm is held.
    recent: VecDeque<Departure>,
    /// The swarm.
    held: BTreeMap<Ipv4Network, Peer>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Departure {
    peer: Peer,
    when: Instant,
    is_let_go: bool,
}

/// What is to be done about departures, but for letting them go in time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
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
        let is_over = |left: &Departure| left.is_let_go && now.duration_since(left.when) > WINDOW;
        while self.recent.pop_front_if(|left| is_over(left)).is_some() {}
        if !self.is_swarm(gone.len(), remaining) {
            let left = |peer| Departure { peer, when: now, is_let_go: false };
            self.recent.extend(gone.into_iter().map(left));
            return Verdict::default();
        }
        let bring_back = self.recent.iter().filter(|left| left.is_let_go).map(|left| left.peer).collect();
        let recent = self.recent.drain(..).map(|left| left.peer);
        self.held = recent.chain(gone).map(|peer| (peer.subnet, peer)).collect();
        self.until = Some(now + self.restraint.hold);
        Verdict { bring_back, holding: self.held.len() }
    }

    fn is_swarm(&self, gone: usize, remaining: usize) -> bool {
        let gone = gone + self.recent.len();
        let limit = usize::from(self.restraint.threshold) * (gone + remaining);
        !self.restraint.hold.is_zero() && gone >= SMALLEST_SWARM && gone * 100 > limit
    }

    /// Hears of a new peer: whoever held its subnet before is neither held nor brought back. Returns those to let go
    /// at once, because their VTEP is now at this peer's address.
    pub fn arrive(&mut self, peer: &Peer) -> Vec<Peer> {
        self.held.remove(&peer.subnet);
        if self.held.is_empty() {
            self.until = None;
        }
        self.recent.retain(|left| left.peer.subnet != peer.subnet);
        let has_moved = |left: &Peer| {
            left.vtep_mac.is_some() && left.vtep_mac == peer.vtep_mac && left.public_ip != peer.public_ip
        };
        let moved = self.recent.iter_mut().filter(|left| !left.is_let_go && has_moved(&left.peer));
        moved.map(Departure::let_go).collect()
    }

    /// The peers that have left and are not let go yet.
    pub fn held(&self) -> impl Iterator<Item = &Peer> {
        let leaving = self.recent.iter().filter(|left| !left.is_let_go).map(|left| &left.peer);
        self.held.values().chain(leaving)
    }

    /// Whether a swarm is held.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.until.is_some()
    }

    /// When somebody is to be let go.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let first = || self.recent.iter().find(|left| !left.is_let_go);
        self.until.or_else(|| first().map(|left| left.when + GRACE))
    }

    /// Lets go the swarm if one is held, else whoever has left long enough ago.
    pub fn let_go(&mut self) -> Vec<Peer> {
        if self.until.take().is_some() {
            return std::mem::take(&mut self.held).into_values().collect();
        }
        let now = Instant::now();
        let is_due = |left: &&mut Departure| !left.is_let_go && now >= left.when + GRACE;
        self.recent.iter_mut().filter(is_due).map(Departure::let_go).collect()
    }
}

impl Departure {
    const fn let_go(&mut self) -> Peer {
        self.is_let_go = true;
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flannel_common::Mac;
    use tokio::time::{Instant, advance};

    use super::{Departures, GRACE, Peer, Restraint, Verdict};

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

    /// Whoever is to be let go in `time` from now.
    async fn let_go_after(departures: &mut Departures, time: Duration) -> Vec<Peer> {
        advance(time).await;
        departures.let_go()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_let_go_after_a_moment() {
        let mut departures = departures();
        assert_eq!(departures.depart(peers(0..9), 0), Verdict::default(), "a small cluster may end");
        assert_eq!(departures.until(), Some(Instant::now() + GRACE));
        assert_eq!(departures.held().count(), 9);
        assert_eq!(let_go_after(&mut departures, GRACE / 2).await, []);
        assert_eq!(let_go_after(&mut departures, GRACE / 2).await, peers(0..9));
        assert_eq!((departures.until(), departures.held().count()), (None, 0));
        advance(Duration::from_secs(11)).await;
        assert_eq!(departures.depart(peers(20..50), 70), Verdict::default(), "30 % are no swarm");
        assert!(!departures.is_holding());
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_let_go_in_its_time() {
        let mut departures = departures();
        departures.depart(peers(0..1), 99);
        advance(GRACE / 2).await;
        departures.depart(peers(1..2), 98);
        assert_eq!(let_go_after(&mut departures, GRACE / 2).await, peers(0..1));
        assert_eq!(departures.until(), Some(Instant::now() + GRACE / 2));
        assert_eq!(let_go_after(&mut departures, GRACE / 2).await, peers(1..2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_comes_back_at_once_was_never_away() {
        let mut departures = departures();
        departures.depart(peers(0..2), 98);
        advance(GRACE / 2).await;
        assert_eq!(departures.arrive(&peers(0..1)[0]), []);
        assert_eq!(let_go_after(&mut departures, GRACE).await, peers(1..2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_vtep_at_another_address_is_nobody_elses() {
        let mut departures = departures();
        let vtep = |third: u8, last| Peer {
            subnet: format!("10.5.{third}.0/24").parse().unwrap(),
            public_ip: [192, 168, 77, last].into(),
            vtep_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        };
        departures.depart(vec![vtep(1, 11), vtep(2, 11), vtep(3, 12)], 97);
        assert_eq!(departures.arrive(&vtep(4, 12)), [vtep(1, 11), vtep(2, 11)]);
        assert_eq!(departures.arrive(&vtep(4, 12)), [], "told once");
        assert_eq!(let_go_after(&mut departures, GRACE).await, [vtep(3, 12)]);
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
            assert_eq!(departures.depart(peers(third..third + 1), 99 - usize::from(third)).holding, 0);
        }
        assert_eq!(let_go_after(&mut departures, GRACE).await, peers(0..30));
        let verdict = departures.depart(peers(30..31), 69);
        assert_eq!((verdict.holding, verdict.bring_back), (31, peers(0..30)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_let_go_yet_needs_no_way_back() {
        let mut departures = departures();
        departures.depart(peers(0..10), 90);
        advance(GRACE).await;
        departures.let_go();
        departures.depart(peers(10..30), 70);
        let verdict = departures.depart(peers(30..31), 69);
        assert_eq!((verdict.holding, verdict.bring_back), (31, peers(0..10)));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_departures_are_no_swarm() {
        let mut departures = departures();
        for third in 0..20 {
            assert_eq!(departures.depart(peers(third..third + 1), 99 - usize::from(third)).holding, 0);
            assert_eq!(let_go_after(&mut departures, GRACE).await, peers(third..third + 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_not_held() {
        let mut departures = departures();
        departures.depart(peers(0..40), 0);
        for peer in peers(0..39) {
            departures.arrive(&peer);
        }
        assert_eq!(departures.held().copied().collect::<Vec<_>>(), peers(39..40));
        departures.arrive(&peers(39..40)[0]);
        assert_eq!(departures.until(), None, "nothing is left to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_of_zero_holds_no_swarm() {
        let mut departures = Departures::new(Restraint { threshold: 30, hold: Duration::ZERO });
        assert_eq!(departures.depart(peers(0..40), 0), Verdict::default());
        assert_eq!(let_go_after(&mut departures, GRACE).await.len(), 40);
    }
}
