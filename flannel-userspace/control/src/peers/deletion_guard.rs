//! Guards against mass deletions of leases. A peer whose lease is deleted expires after a moment, for a host whose lease
//! was deleted writes it again at once. When a large part of the cluster is deleted within seconds, somebody more likely
//! deleted leases than hosts, and the hosts are still there: then no peer expires for a while, in which leases can come
//! back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::Peer;

/// How long the lease of a peer may be missing without any effect.
const GRACE: Duration = Duration::from_secs(1);
/// Deletions within this time count together.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer are never a mass deletion, however small the cluster.
const SMALLEST: usize = 10;

/// What a mass deletion is, and for how long its peers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionPolicy {
    /// Share of the peers, in percent, more of which make a mass deletion.
    pub threshold: u8,
    /// For how long no peer expires then; zero to hold none.
    pub hold: Duration,
}

/// Peers whose leases vanished lately, and peers that are held.
#[derive(Debug)]
pub struct DeletionGuard {
    policy: DeletionPolicy,
    /// Deletions within the window, in their order; none during a mass deletion.
    recent: VecDeque<Deletion>,
    /// The peers of a mass deletion.
    held: BTreeMap<IpNetwork, Peer>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Deletion {
    peer: Peer,
    when: Instant,
    is_expired: bool,
}

/// What a deletion changes at once; peers expire later.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Peers to put back that had expired before their deletion proved to be part of a mass deletion.
    pub bring_back: Vec<Peer>,
    /// How many are held from now on; zero where none or already some were.
    pub holding: usize,
}

impl DeletionGuard {
    /// Nobody has left yet.
    #[must_use]
    pub const fn new(policy: DeletionPolicy) -> Self {
        Self { policy, recent: VecDeque::new(), held: BTreeMap::new(), until: None }
    }

    /// Decides about peers that left `remaining` others behind.
    pub fn depart(&mut self, gone: Vec<Peer>, remaining: usize) -> Verdict {
        let now = Instant::now();
        if self.until.is_some() {
            self.held.extend(gone.into_iter().map(|peer| (peer.subnet, peer)));
            return Verdict::default();
        }
        let is_over = |left: &Deletion| left.is_expired && now.duration_since(left.when) > WINDOW;
        while self.recent.pop_front_if(|left| is_over(left)).is_some() {}
        if !self.is_mass_deletion(gone.len(), remaining) {
            let left = |peer| Deletion { peer, when: now, is_expired: false };
            self.recent.extend(gone.into_iter().map(left));
            return Verdict::default();
        }
        let bring_back = self.recent.iter().filter(|left| left.is_expired).map(|left| left.peer).collect();
        let recent = self.recent.drain(..).map(|left| left.peer);
        self.held = recent.chain(gone).map(|peer| (peer.subnet, peer)).collect();
        self.until = Some(now + self.policy.hold);
        Verdict { bring_back, holding: self.held.len() }
    }

    fn is_mass_deletion(&self, gone: usize, remaining: usize) -> bool {
        let gone = gone + self.recent.len();
        let limit = usize::from(self.policy.threshold) * (gone + remaining);
        !self.policy.hold.is_zero() && gone >= SMALLEST && gone * 100 > limit
    }

    /// Takes note of a new peer: the former holder of its subnet is neither held nor brought back. Returns peers to
    /// expire at once, because their VTEP is now at this peer's address.
    pub fn arrive(&mut self, peer: &Peer) -> Vec<Peer> {
        self.held.remove(&peer.subnet);
        if self.held.is_empty() {
            self.until = None;
        }
        self.recent.retain(|left| left.peer.subnet != peer.subnet);
        let has_moved = |left: &Peer| {
            left.vtep_mac.is_some() && left.vtep_mac == peer.vtep_mac && left.public_ip != peer.public_ip
        };
        let moved = self.recent.iter_mut().filter(|left| !left.is_expired && has_moved(&left.peer));
        moved.map(Deletion::expire).collect()
    }

    /// The peers that have left and have not expired yet.
    pub fn held(&self) -> impl Iterator<Item = &Peer> {
        let leaving = self.recent.iter().filter(|left| !left.is_expired).map(|left| &left.peer);
        self.held.values().chain(leaving)
    }

    /// Whether peers of a mass deletion are held.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.until.is_some()
    }

    /// When the next peer expires.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let first = || self.recent.iter().find(|left| !left.is_expired);
        self.until.or_else(|| first().map(|left| left.when + GRACE))
    }

    /// The peers to remove now: those held since a mass deletion, else those that left long enough ago.
    pub fn expire(&mut self) -> Vec<Peer> {
        if self.until.take().is_some() {
            return std::mem::take(&mut self.held).into_values().collect();
        }
        let now = Instant::now();
        let is_due = |left: &&mut Deletion| !left.is_expired && now >= left.when + GRACE;
        self.recent.iter_mut().filter(is_due).map(Deletion::expire).collect()
    }
}

impl Deletion {
    const fn expire(&mut self) -> Peer {
        self.is_expired = true;
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flannel_common::Mac;
    use flannel_model::vxlan::Announced;
    use tokio::time::{Instant, advance};

    use super::{DeletionGuard, DeletionPolicy, GRACE, Peer, Verdict};

    const HOLD: Duration = Duration::from_secs(60);

    fn guard() -> DeletionGuard {
        DeletionGuard::new(DeletionPolicy { threshold: 30, hold: HOLD })
    }

    fn peers(subnets: std::ops::Range<u8>) -> Vec<Peer> {
        let peer = |third| Peer {
            subnet: format!("10.5.{third}.0/24").parse().unwrap(),
            public_ip: [192, 168, 77, third].into(),
            vtep_mac: None,
            announced: Announced::default(),
            heard: None,
        };
        subnets.map(peer).collect()
    }

    /// The peers that expire in `time` from now.
    async fn expired_after(guard: &mut DeletionGuard, time: Duration) -> Vec<Peer> {
        advance(time).await;
        guard.expire()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_expire_after_a_moment() {
        let mut guard = guard();
        assert_eq!(guard.depart(peers(0..9), 0), Verdict::default(), "a small cluster may end");
        assert_eq!(guard.until(), Some(Instant::now() + GRACE));
        assert_eq!(guard.held().count(), 9);
        assert_eq!(expired_after(&mut guard, GRACE / 2).await, []);
        assert_eq!(expired_after(&mut guard, GRACE / 2).await, peers(0..9));
        assert_eq!((guard.until(), guard.held().count()), (None, 0));
        advance(Duration::from_secs(11)).await;
        assert_eq!(guard.depart(peers(20..50), 70), Verdict::default(), "30 % are no mass deletion");
        assert!(!guard.is_holding());
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_expired_in_its_time() {
        let mut guard = guard();
        guard.depart(peers(0..1), 99);
        advance(GRACE / 2).await;
        guard.depart(peers(1..2), 98);
        assert_eq!(expired_after(&mut guard, GRACE / 2).await, peers(0..1));
        assert_eq!(guard.until(), Some(Instant::now() + GRACE / 2));
        assert_eq!(expired_after(&mut guard, GRACE / 2).await, peers(1..2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_comes_back_at_once_was_never_away() {
        let mut guard = guard();
        guard.depart(peers(0..2), 98);
        advance(GRACE / 2).await;
        assert_eq!(guard.arrive(&peers(0..1)[0]), []);
        assert_eq!(expired_after(&mut guard, GRACE).await, peers(1..2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_vtep_at_another_address_is_nobody_elses() {
        let mut guard = guard();
        let vtep = |third: u8, last| Peer {
            subnet: format!("10.5.{third}.0/24").parse().unwrap(),
            public_ip: [192, 168, 77, last].into(),
            vtep_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            announced: Announced::default(),
            heard: None,
        };
        guard.depart(vec![vtep(1, 11), vtep(2, 11), vtep(3, 12)], 97);
        assert_eq!(guard.arrive(&vtep(4, 12)), [vtep(1, 11), vtep(2, 11)]);
        assert_eq!(guard.arrive(&vtep(4, 12)), [], "told once");
        assert_eq!(expired_after(&mut guard, GRACE).await, [vtep(3, 12)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mass_deletion_is_held_and_then_expires() {
        let mut guard = guard();
        let verdict = guard.depart(peers(0..40), 60);
        assert_eq!(verdict, Verdict { holding: 40, ..Verdict::default() });
        assert_eq!(guard.until(), Some(Instant::now() + HOLD));
        assert_eq!(guard.depart(peers(40..41), 59), Verdict::default(), "later ones are held as well");
        assert_eq!(guard.expire(), peers(0..41));
        assert_eq!(guard.until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_by_one_is_a_mass_deletion_too() {
        let mut guard = guard();
        for third in 0..30 {
            assert_eq!(guard.depart(peers(third..third + 1), 99 - usize::from(third)).holding, 0);
        }
        assert_eq!(expired_after(&mut guard, GRACE).await, peers(0..30));
        let verdict = guard.depart(peers(30..31), 69);
        assert_eq!((verdict.holding, verdict.bring_back), (31, peers(0..30)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_expired_yet_is_not_put_back() {
        let mut guard = guard();
        guard.depart(peers(0..10), 90);
        advance(GRACE).await;
        guard.expire();
        guard.depart(peers(10..30), 70);
        let verdict = guard.depart(peers(30..31), 69);
        assert_eq!((verdict.holding, verdict.bring_back), (31, peers(0..10)));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_deletions_are_no_mass_deletion() {
        let mut guard = guard();
        for third in 0..20 {
            assert_eq!(guard.depart(peers(third..third + 1), 99 - usize::from(third)).holding, 0);
            assert_eq!(expired_after(&mut guard, GRACE).await, peers(third..third + 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_not_held() {
        let mut guard = guard();
        guard.depart(peers(0..40), 0);
        for peer in peers(0..39) {
            guard.arrive(&peer);
        }
        assert_eq!(guard.held().copied().collect::<Vec<_>>(), peers(39..40));
        guard.arrive(&peers(39..40)[0]);
        assert_eq!(guard.until(), None, "nothing is left to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_of_zero_holds_nobody() {
        let mut guard = DeletionGuard::new(DeletionPolicy { threshold: 30, hold: Duration::ZERO });
        assert_eq!(guard.depart(peers(0..40), 0), Verdict::default());
        assert_eq!(expired_after(&mut guard, GRACE).await.len(), 40);
    }
}
