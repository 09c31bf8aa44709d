//! The only loop: list the leases, follow them, list again from time to time; and keep what is in the kernel
//! equal to what the leases ask for. Nothing is cleared and filled again: what is there is compared with
//! what is wanted, and the difference is corrected. What fails stays wanted and is tried again.

mod state;
mod wanted;

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use ipnetwork::Ipv4Network;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use crate::backend::{Backend, Object};
use crate::kernel::{Hop, Netlink, Underlay};
use crate::lease::Holder;
use crate::peers::{Diff, Peer, PeerTable};
use crate::registry::{Event, Registry, Snapshot, Watch as _, WatchError};

pub use state::KernelState;
use wanted::Wanted;

/// How often the kernel is compared with what is wanted, whether or not anything happened.
const SWEEP: Duration = Duration::from_secs(10);
/// How often the leases are listed and compared, whether or not the watch told anything: etcd has been seen
/// to lose events.
const RESYNC: Duration = Duration::from_secs(60);
/// Pauses between attempts to reach the registry: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What the loop works with.
pub struct Reconciler<R> {
    /// Where the leases stand.
    pub registry: R,
    /// Hears of the own lease.
    pub holder: Holder,
    /// The whole network.
    pub network: Ipv4Network,
    /// The interface that carries the tunnel.
    pub underlay: Underlay,
    /// The kernel's tables of links and routes.
    pub netlink: Netlink,
    /// What a peer becomes.
    pub backend: Backend,
    /// What is in the kernel.
    pub state: KernelState,
    /// The accepted peers.
    pub peers: PeerTable,
}

/// Runs the loop, for ever.
pub struct Loop<R> {
    given: Reconciler<R>,
    wanted: Wanted,
    /// Failures that were reported, so that each is reported once.
    failing: BTreeSet<Object>,
    registry_is_away: bool,
}

impl<R: Registry> Loop<R> {
    /// A loop that has not seen a lease yet.
    #[must_use]
    pub fn new(given: Reconciler<R>) -> Self {
        let wanted = Wanted::new(given.backend.standing(given.network));
        Self { given, wanted, failing: BTreeSet::new(), registry_is_away: false }
    }

    /// Lists and follows, for ever. The caller drops the future to end it; what is in the kernel stays.
    pub async fn run(mut self) {
        loop {
            let snapshot = self.list().await;
            let revision = snapshot.revision;
            self.take_snapshot(&snapshot).await;
            let Some(mut watch) = self.open_watch(revision).await else { continue };
            self.follow(&mut watch).await;
        }
    }

    /// A listing, as soon as the registry gives one. The kernel is swept meanwhile.
    async fn list(&mut self) -> Snapshot {
        let mut pauses = retry_pauses();
        let mut sweep = sweeps();
        loop {
            let registry = self.given.registry.clone();
            let attempt = async {
                let listed = registry.list().await;
                if listed.is_err() {
                    sleep(pauses.next().unwrap_or(RETRY.1)).await;
                }
                listed
            };
            tokio::pin!(attempt);
            let listed = loop {
                tokio::select! {
                    listed = &mut attempt => break listed,
                    _ = sweep.tick() => self.correct().await,
                }
            };
            match listed {
                Ok(snapshot) => {
                    self.report_registry(true, &"");
                    return snapshot;
                }
                Err(error) => self.report_registry(false, &error),
            }
        }
    }

    async fn open_watch(&mut self, revision: i64) -> Option<R::Watch> {
        match self.given.registry.watch(revision).await {
            Ok(watch) => Some(watch),
            Err(error) => {
                self.report_registry(false, &error);
                sleep(RETRY.0).await;
                None
            }
        }
    }

    /// Applies events until a listing is due.
    async fn follow(&mut self, watch: &mut R::Watch) {
        let mut sweep = sweeps();
        // Hosts that started together need not list together.
        let resync = sleep(RESYNC.mul_f64(rand::random_range(0.8..1.2)));
        tokio::pin!(resync);
        loop {
            tokio::select! {
                events = watch.next() => match events {
                    Ok(events) => self.take_events(events).await,
                    Err(WatchError::Compacted { .. }) => {
                        info!("the registry has compacted the history: listing the leases again");
                        return;
                    }
                    Err(error) => {
                        self.report_registry(false, &error);
                        sleep(RETRY.0).await;
                        return;
                    }
                },
                _ = sweep.tick() => self.correct().await,
                () = &mut resync => return,
            }
        }
    }

    async fn take_snapshot(&mut self, snapshot: &Snapshot) {
        self.given.holder.sync(snapshot);
        let diff = self.given.peers.apply_snapshot(snapshot);
        self.want(&diff).await;
        self.correct().await;
    }

    async fn take_events(&mut self, events: Vec<Event>) {
        let mut touched = BTreeSet::new();
        for event in events {
            self.given.holder.observe(&event);
            let diff = self.given.peers.apply_event(&event);
            touched.append(&mut self.want(&diff).await);
        }
        self.apply(touched).await;
    }

    /// Notes what `diff` changes in what is wanted, and returns the objects that it touches.
    async fn want(&mut self, diff: &Diff) -> BTreeSet<Object> {
        let mut touched = BTreeSet::new();
        for peer in &diff.removed {
            info!(subnet = %peer.subnet, public_ip = %peer.public_ip, "peer removed");
            touched.append(&mut self.wanted.set(peer.subnet, BTreeSet::new()));
        }
        let changed = diff.changed.iter().map(|(_, after)| after);
        for peer in diff.added.iter().chain(changed) {
            info!(subnet = %peer.subnet, public_ip = %peer.public_ip, "peer known");
            let objects = self.objects(peer).await;
            touched.append(&mut self.wanted.set(peer.subnet, objects));
        }
        touched
    }

    async fn objects(&self, peer: &Peer) -> BTreeSet<Object> {
        let given = &self.given;
        let hop = if given.backend.depends_on_hop() {
            given.netlink.hop(peer.public_ip, &given.underlay).await.unwrap_or_else(|error| {
                warn!(%error, public_ip = %peer.public_ip, "taking the peer to be behind a router");
                Hop::Routed
            })
        } else {
            Hop::Routed
        };
        match given.backend.objects(peer, hop) {
            Ok(objects) => objects.into_iter().collect(),
            Err(unreachable) => {
                warn!("{unreachable}");
                BTreeSet::new()
            }
        }
    }

    /// Puts or removes each of `objects`, as it is wanted or not.
    async fn apply(&mut self, objects: BTreeSet<Object>) {
        let (put, remove): (BTreeSet<_>, BTreeSet<_>) =
            objects.into_iter().partition(|object| self.wanted.contains(object));
        self.put_and_remove(put, remove).await;
    }

    /// Makes the kernel equal to what is wanted.
    async fn correct(&mut self) {
        let actual = match self.given.state.list().await {
            Ok(actual) => actual,
            Err(error) => {
                warn!(%error, "cannot compare the kernel with what is wanted; trying again");
                return;
            }
        };
        let wanted = self.wanted.all();
        let missing: BTreeSet<Object> = wanted.difference(&actual).cloned().collect();
        let stale: BTreeSet<Object> = actual.difference(&wanted).cloned().collect();
        if !(missing.is_empty() && stale.is_empty()) {
            debug!(missing = missing.len(), stale = stale.len(), "correcting the kernel");
        }
        self.put_and_remove(missing, stale).await;
    }

    /// Puts first, each in the place of one with the same key, so that a change leaves no gap; then removes
    /// what is left of the old.
    async fn put_and_remove(&mut self, put: BTreeSet<Object>, remove: BTreeSet<Object>) {
        for object in put {
            let done = self.given.state.put(&object).await;
            self.report(object, "put", done);
        }
        for object in remove.into_iter().rev() {
            let done = self.given.state.remove(&object).await;
            self.report(object, "remove", done);
        }
    }

    fn report(&mut self, object: Object, operation: &str, done: Result<(), state::StateError>) {
        match done {
            Ok(()) => {
                debug!(?object, operation, "done");
                if self.failing.remove(&object) {
                    info!(?object, "what failed before is done: {operation}");
                }
            }
            Err(error) if self.failing.contains(&object) => debug!(%error, ?object, "still failing"),
            Err(error) => {
                warn!(error = %Chain(&error), ?object, "cannot {operation}; trying again");
                self.failing.insert(object);
            }
        }
    }

    /// One line when the registry goes away, one when it is back.
    fn report_registry(&mut self, is_there: bool, error: &dyn std::fmt::Display) {
        match (is_there, self.registry_is_away) {
            (false, false) => warn!(%error, "the registry is away; forwarding goes on with the known peers"),
            (true, true) => info!("the registry is back"),
            _ => {}
        }
        self.registry_is_away = !is_there;
    }
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

fn sweeps() -> tokio::time::Interval {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; a sweep has just been.
    sweeps.reset();
    sweeps
}

fn retry_pauses() -> impl Iterator<Item = Duration> {
    let (first, longest) = RETRY;
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}
