//! The only loop: list the leases, follow them, list again from time to time; and keep what is in the kernel
//! equal to what the leases ask for. Nothing is cleared and filled again: what is there is compared with
//! what is wanted, and the difference is corrected. What fails stays wanted and is tried again.

mod announce;
mod state;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use ipnetwork::Ipv4Network;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::backend::{Backend, Object, Unreachable};
use crate::daemon::Chain;
use crate::kernel::{Change, Hop, Monitor};
use crate::peers::{Diff, Peer, PeerTable};
use crate::registry::{Event, Registry, Snapshot, Watch as _, WatchError};

pub use announce::Announcement;
use state::Changes;
pub use state::{Ground, KernelState, StateError};
use wanted::Wanted;

/// How often the kernel is compared with what is wanted, whether or not anything happened.
const SWEEP: Duration = Duration::from_secs(10);
/// How often the leases are listed and compared, whether or not the watch told anything: etcd has been seen
/// to lose events.
const RESYNC: Duration = Duration::from_secs(60);
/// Pauses between attempts to reach the registry: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// For so long announcements of the kernel are gathered, for they come in swarms.
const SETTLE: Duration = Duration::from_millis(100);

/// What the loop works with.
pub struct Reconciler<R> {
    /// Where the leases stand.
    pub registry: R,
    /// What this host tells others.
    pub announcement: Announcement,
    /// What is in the kernel.
    pub state: KernelState,
    /// What changes in the kernel.
    pub monitor: Monitor,
    /// The accepted peers.
    pub peers: PeerTable,
    /// Told when every lease of the first listing was applied.
    pub synced: Option<oneshot::Sender<()>>,
}

/// Runs the loop, for ever.
pub struct Loop<R> {
    given: Reconciler<R>,
    wanted: Wanted,
    /// Failures that were reported, so that each is reported once.
    failing: BTreeSet<Object>,
    /// Peers without a way to them, reported as well.
    unreachable: BTreeMap<Ipv4Network, Unreachable>,
    cannot_hold: bool,
    registry_is_away: bool,
    /// Whether leases that were refused may be acceptable now.
    must_list: bool,
    /// When announcements of the kernel are due to be looked into.
    due: Due,
}

/// When to look, for what reason.
#[derive(Default)]
struct Due {
    stations: Option<Instant>,
    interfaces: Option<Instant>,
}

impl Due {
    fn next(&self) -> Option<Instant> {
        self.stations.into_iter().chain(self.interfaces).min()
    }
}

impl<R: Registry> Loop<R> {
    /// A loop that has not seen a lease yet.
    #[must_use]
    pub fn new(given: Reconciler<R>) -> Self {
        let wanted = Wanted::new(standing(&given.state));
        Self {
            given,
            wanted,
            failing: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            cannot_hold: false,
            registry_is_away: false,
            must_list: false,
            due: Due::default(),
        }
    }

    /// Lists and follows, for ever. The caller drops the future to end it; what is in the kernel stays.
    pub async fn run(mut self) -> Infallible {
        loop {
            let snapshot = self.list().await;
            let revision = snapshot.revision;
            self.take_snapshot(&snapshot).await;
            if let Some(synced) = self.given.synced.take() {
                // Nobody may be left to hear it.
                let _ = synced.send(());
            }
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
                    change = self.given.monitor.next() => self.note(change).await,
                    () = until(self.due.next()) => self.look().await,
                    _ = sweep.tick() => self.sweep().await,
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
        while !std::mem::take(&mut self.must_list) {
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
                change = self.given.monitor.next() => self.note(change).await,
                () = until(self.due.next()) => self.look().await,
                _ = sweep.tick() => self.sweep().await,
                () = &mut resync => return,
            }
        }
    }

    async fn take_snapshot(&mut self, snapshot: &Snapshot) {
        self.given.announcement.holder.sync(snapshot);
        let diff = self.given.peers.apply_snapshot(snapshot);
        self.want(&diff).await;
        self.correct().await;
    }

    /// Repairs at once what an announcement tells to be missing or replaced, and notes what else to look at.
    async fn note(&mut self, change: Change) {
        let soon = Instant::now() + SETTLE;
        match change {
            Change::Object { object, present } => {
                let in_place = self.wanted.in_place_of(&object);
                if let Some(wanted) = in_place.filter(|wanted| !present || **wanted != object).cloned() {
                    info!(?wanted, "somebody removed or replaced what is ours: putting it back");
                    self.put_and_remove([wanted].into(), BTreeSet::new()).await;
                }
            }
            Change::Stations => self.due.stations = self.due.stations.or(Some(soon)),
            Change::Interfaces | Change::Overrun => {
                self.due.interfaces = self.due.interfaces.or(Some(soon));
            }
        }
    }

    async fn look(&mut self) {
        if self.due.interfaces.is_some() {
            self.sweep().await;
        } else if let Err(error) = self.given.state.serve_pods().await {
            warn!(error = %Chain(&error), "cannot tell the programs where the pods are; trying again");
        }
        self.due = Due::default();
    }

    /// Makes everything in the kernel what it was meant to be.
    async fn sweep(&mut self) {
        match self.given.state.hold().await {
            Ok(changes) => {
                if std::mem::take(&mut self.cannot_hold) {
                    info!("flannel's device and programs are in their places again");
                }
                self.follow_changes(changes).await;
                self.correct().await;
            }
            Err(error) if self.cannot_hold => debug!(error = %Chain(&error), "still failing"),
            Err(error) => {
                self.cannot_hold = true;
                warn!(error = %Chain(&error), "cannot keep flannel's device and programs in place; trying again");
            }
        }
    }

    async fn follow_changes(&mut self, changes: Changes) {
        let Ground { backend, underlay, .. } = self.given.state.ground();
        self.must_list |= self.given.peers.move_to(underlay);
        if changes.underlay {
            // Connections from the former address are dead without knowing it.
            self.given.registry.reconnect().await;
            self.given.announcement.publish(backend, underlay);
            self.must_list = true;
        }
        if let Err(error) = self.given.announcement.write_file() {
            warn!(error = %Chain(&error), "cannot keep the subnet file; trying again");
        }
        // By another route, a peer may have come onto the link, or left it.
        if changes.underlay || changes.device || backend.depends_on_hop() {
            self.want_anew().await;
        }
    }

    /// Finds out again what each peer becomes.
    async fn want_anew(&mut self) {
        self.failing.clear();
        self.wanted = Wanted::new(standing(&self.given.state));
        let peers: Vec<Peer> = self.given.peers.peers().copied().collect();
        for peer in &peers {
            let objects = self.objects(peer).await;
            self.wanted.set(peer.subnet, objects);
        }
    }

    async fn take_events(&mut self, events: Vec<Event>) {
        let mut touched = BTreeSet::new();
        for event in events {
            self.given.announcement.holder.observe(&event);
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
            self.unreachable.remove(&peer.subnet);
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

    async fn objects(&mut self, peer: &Peer) -> BTreeSet<Object> {
        let ground = self.given.state.ground();
        let hop = if ground.backend.depends_on_hop() {
            ground.netlink.hop(peer.public_ip, &ground.underlay).await.unwrap_or_else(|error| {
                warn!(%error, public_ip = %peer.public_ip, "taking the peer to be behind a router");
                Hop::Routed
            })
        } else {
            Hop::Routed
        };
        match ground.backend.objects(peer, hop) {
            Ok(objects) => {
                self.unreachable.remove(&peer.subnet);
                objects.into_iter().collect()
            }
            Err(unreachable) => {
                if self.unreachable.get(&peer.subnet) != Some(&unreachable) {
                    warn!("{unreachable}");
                    self.unreachable.insert(peer.subnet, unreachable);
                }
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

fn standing(state: &KernelState) -> Vec<Object> {
    let ground = state.ground();
    let backend: &Backend = &ground.backend;
    backend.standing(ground.network)
}

/// Waits until then; for ever where there is no such time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
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
