//! Keeps the kernel equal to what the peers ask for. Nothing is cleared and filled again: what is there is compared
//! with what is wanted, and the difference is corrected. What fails stays wanted and is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_model::error::Chain;
use flannel_model::object::Object;
use flannel_model::underlay::Hop;
use flannel_net::{Change, Monitor};
use flannel_observe::Condition;
use ipnetwork::Ipv4Network;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::state::{Changes, KernelState, NodeContext, StateError};
use super::wanted::{Discard, Wanted};
use crate::backend::Unreachable;
use crate::peers::Peer;
use crate::reconcile::ReconcileMetrics;
use crate::until;

/// How often the kernel is compared with what is wanted, whether or not anything happened.
const SWEEP: Duration = Duration::from_secs(10);
/// How often programs are looked for that somebody has detached, which the kernel does not announce.
const LOOK: Duration = Duration::from_secs(1);
/// For so long announcements of the kernel are gathered, for they come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// The kernel is compared with what is wanted at most in one part of so many of the time: with many peers less often.
/// What changes in its tables is announced; this finds what is not.
const UNHURRIED: u32 = 1000;
/// The same when something was announced that can have changed more than was told.
const HURRIED: u32 = 50;
/// The same when it was an interface of ours: with one that is down its routes are gone, which nobody announces.
const AT_ONCE: u32 = 1;
/// More failures at once are summed up in the log.
const FEW: usize = 20;

/// After so many peers at once what is wanted is made compact.
const SWARM: usize = 1000;

/// Keeps the kernel.
pub(super) struct Keeper {
    state: KernelState,
    monitor: Monitor,
    wanted: Wanted,
    /// Whether it was ever told who the peers are. Before that, what is in the kernel is not known to be wrong.
    informed: bool,
    /// Failures that were reported, so that each is reported once.
    failing: BTreeSet<Object>,
    /// Peers without a way to them, reported as well.
    unreachable: BTreeMap<Ipv4Network, Unreachable>,
    /// Whether device and programs are where they should be.
    in_place: Condition,
    cannot_hold: bool,
    sweeps: Interval,
    looks: Interval,
    /// When to look where the pods are.
    fdb_due: Option<Instant>,
    /// When to look at interfaces, and at everything else along with them if that is due.
    interfaces_due: Option<Instant>,
    /// When everything was compared last, and how long that took.
    compared: (Instant, Duration),
    comparison_due: Instant,
    metrics: ReconcileMetrics,
}

/// Why the kernel can differ from what is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// Something else is wanted now.
    Wish,
    /// Somebody else has changed the kernel.
    Damage,
}

/// What there is to do.
pub(super) enum Task {
    /// Look into something the kernel announced.
    Note(Change),
    /// Find out where the pods are.
    FindPods,
    /// Look at everything.
    Sweep,
}

impl Keeper {
    /// Takes over what is in the kernel.
    pub(super) fn new(
        state: KernelState,
        monitor: Monitor,
        in_place: Condition,
        metrics: ReconcileMetrics,
    ) -> Self {
        let wanted = Wanted::new(standing(&state));
        Self {
            state,
            monitor,
            wanted,
            informed: false,
            failing: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            in_place,
            cannot_hold: false,
            sweeps: every(SWEEP),
            looks: every(LOOK),
            fdb_due: None,
            interfaces_due: None,
            compared: (Instant::now(), Duration::ZERO),
            comparison_due: Instant::now() + SWEEP,
            metrics,
        }
    }

    pub(super) const fn ground(&self) -> &NodeContext {
        self.state.ground()
    }

    /// Waits until there is something to do. Dropping the future loses nothing.
    pub(super) async fn task(&mut self) -> Task {
        loop {
            let due = self.interfaces_due.or(self.informed.then_some(self.comparison_due));
            return tokio::select! {
                change = self.monitor.next() => Task::Note(change),
                () = until(due) => Task::Sweep,
                () = until(self.fdb_due) => Task::FindPods,
                _ = self.sweeps.tick() => Task::Sweep,
                _ = self.looks.tick() => if self.state.is_whole() { continue } else { Task::Sweep },
            };
        }
    }

    /// Repairs at once what an announcement tells to be missing or replaced, and notes what else to look at.
    pub(super) async fn note(&mut self, change: Change) {
        let soon = Instant::now() + SETTLE;
        match change {
            Change::Object { object, present } => {
                let in_place = self.wanted.in_place_of(&object);
                if let Some(wanted) = in_place.filter(|wanted| !present || **wanted != object).cloned() {
                    info!(?wanted, "somebody removed or replaced what is ours: putting it back");
                    self.metrics.repaired(&wanted);
                    self.put_and_remove(vec![wanted], Vec::new()).await;
                } else if self.is_way(&object) {
                    self.look_soon(HURRIED);
                }
            }
            Change::Routes if self.ground().backend.depends_on_hop() => self.look_soon(HURRIED),
            Change::Routes => {}
            Change::BridgeFdb => self.fdb_due = self.fdb_due.or(Some(soon)),
            Change::Interface(index) if self.is_own(index) => self.look_soon(AT_ONCE),
            Change::Interface(_) if self.ground().backend.depends_on_hop() => self.look_soon(HURRIED),
            Change::Interface(_) => self.interfaces_due = self.interfaces_due.or(Some(soon)),
            Change::Overrun => self.look_soon(HURRIED),
        }
    }

    /// Whether objects are on the interface of that index.
    fn is_own(&self, index: u32) -> bool {
        let NodeContext { backend, underlay, .. } = self.ground();
        underlay.index == index || backend.device().is_some_and(|device| device.index == index)
    }

    /// Whether `object` is a route by which peers can be reached, and no route to what is behind them.
    fn is_way(&self, object: &Object) -> bool {
        let NodeContext { backend, network, .. } = self.ground();
        let Object::Route { subnet, .. } = object else { return false };
        backend.depends_on_hop() && !subnet.is_subnet_of(*network)
    }

    pub(super) async fn find_pods(&mut self) {
        self.fdb_due = None;
        if let Err(error) = self.state.serve_pods().await {
            warn!(error = %Chain(&error), "cannot tell the programs where the pods are; trying again");
        }
    }

    /// Makes device, address and programs what they were meant to be, and tells what has changed under them.
    pub(super) async fn hold(&mut self) -> Changes {
        (self.interfaces_due, self.fdb_due) = (None, None);
        match self.state.hold().await {
            Ok(changes) => {
                self.in_place.meet();
                if std::mem::take(&mut self.cannot_hold) {
                    info!("flannel's device and programs are in their places again");
                }
                changes
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                if std::mem::replace(&mut self.cannot_hold, true) {
                    debug!(error, "still failing");
                } else {
                    warn!(error, "cannot keep flannel's device and programs in place; trying again");
                }
                self.in_place.fail(error);
                Changes::default()
            }
        }
    }

    /// Whether it is time to look for damage that nothing announced.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.comparison_due
    }

    /// Finds out again what each of all `peers` becomes.
    pub(super) async fn want_anew(&mut self, peers: &[Peer]) {
        self.wanted = Wanted::new(standing(&self.state));
        self.want(peers, &mut Discard).await;
        self.failing.retain(|object| self.wanted.contains(object));
    }

    /// Has `peers` reached from now on; the objects that touches go into `touched`.
    pub(super) async fn want(&mut self, peers: &[Peer], touched: &mut (impl Extend<Object> + Send)) {
        let mut without_way = 0;
        for (peer, hop) in peers.iter().zip(self.hops(peers).await) {
            let objects = match self.ground().objects(peer, hop) {
                Ok(objects) => {
                    self.unreachable.remove(&peer.subnet);
                    objects
                }
                Err(unreachable) => {
                    if self.unreachable.get(&peer.subnet) != Some(&unreachable) {
                        without_way += 1;
                        if without_way <= FEW {
                            warn!("{unreachable}");
                        }
                        self.unreachable.insert(peer.subnet, unreachable);
                    }
                    Vec::new()
                }
            };
            self.wanted.set(peer.subnet, objects, touched);
        }
        if peers.len() >= SWARM {
            self.wanted.compact();
        }
        if without_way > FEW {
            warn!(peers = without_way - FEW, "as many others cannot be reached for such reasons");
        }
    }

    /// How each of `peers` is reached, where that matters.
    async fn hops(&self, peers: &[Peer]) -> Vec<Hop> {
        let NodeContext { backend, underlay, .. } = self.ground();
        if backend.depends_on_hop() {
            let addresses: Vec<Ipv4Addr> = peers.iter().map(|peer| peer.public_ip).collect();
            match flannel_net::hops(&addresses, underlay).await {
                Ok(hops) => return hops,
                Err(error) => warn!(error = %Chain(&error), "taking the peers to be behind a router"),
            }
        }
        vec![Hop::Routed; peers.len()]
    }

    /// Has the peer of `subnet` reached no more; the objects that touches go into `touched`.
    pub(super) fn forget(&mut self, subnet: Ipv4Network, touched: &mut (impl Extend<Object> + Send)) {
        self.unreachable.remove(&subnet);
        self.wanted.set(subnet, Vec::new(), touched);
    }

    /// Puts or removes each of `objects`, as it is wanted or not.
    pub(super) async fn apply(&mut self, mut objects: Vec<Object>) {
        objects.sort_unstable();
        objects.dedup();
        let (put, remove) = objects.into_iter().partition(|object| self.wanted.contains(object));
        self.put_and_remove(put, remove).await;
    }

    /// How many peers the kernel refuses something of, and to how many there is no way.
    pub(super) fn failing(&self) -> (usize, usize) {
        (self.wanted.peers_with(&self.failing), self.unreachable.len())
    }

    /// Hears that what is wanted now is all there is.
    pub(super) const fn inform(&mut self) {
        self.informed = true;
    }

    /// Makes the kernel equal to what is wanted, once that is known. Damage that nothing announced is looked for
    /// when it is due. The work for it began at `since`.
    pub(super) async fn correct(&mut self, cause: Difference, since: Instant) {
        if !self.informed || cause == Difference::Damage && since < self.comparison_due {
            return;
        }
        self.comparison_due = since + SWEEP;
        let actual = match self.state.list().await {
            Ok(actual) => actual,
            Err(error) => {
                warn!(error = %Chain(&error), "cannot compare the kernel with what is wanted; trying again");
                return;
            }
        };
        let (missing, stale) = self.wanted.differences(&actual);
        drop(actual);
        self.compared = (since, since.elapsed());
        self.comparison_due = since + SWEEP.max(since.elapsed() * UNHURRIED);
        if !(missing.is_empty() && stale.is_empty()) {
            debug!(missing = missing.len(), stale = stale.len(), "correcting the kernel");
        }
        if cause == Difference::Damage {
            // What the kernel refused before is missing for that reason.
            let damaged = missing.iter().chain(&stale).filter(|object| !self.failing.contains(object));
            damaged.for_each(|object| self.metrics.repaired(object));
        }
        self.put_and_remove(missing, stale).await;
        if let Err(error) = self.state.take_over() {
            warn!(error = %Chain(&error), "cannot replace the programs of another build; trying again");
        }
        self.metrics.corrected(since.elapsed());
    }

    /// Has interfaces looked at soon, and everything else at most in one part of `unhurried` of the time.
    fn look_soon(&mut self, unhurried: u32) {
        let soon = Instant::now() + SETTLE;
        let (since, cost) = self.compared;
        self.interfaces_due = self.interfaces_due.or(Some(soon));
        self.comparison_due = self.comparison_due.min(soon.max(since + cost * unhurried));
    }

    /// Puts first, each in the place of one with the same key, so that a change leaves no gap; then removes
    /// what is left of the old. Both are in order.
    async fn put_and_remove(&mut self, put: Vec<Object>, remove: Vec<Object>) {
        let failed = self.state.put(&put).await;
        self.report(&put, "put", failed);
        let failed = self.state.remove(&remove).await;
        self.report(&remove, "remove", failed);
    }

    fn report(&mut self, objects: &[Object], operation: &str, failed: Vec<(Object, StateError)>) {
        if !self.failing.is_empty() {
            let still: BTreeSet<&Object> = failed.iter().map(|(object, _)| object).collect();
            for object in objects.iter().filter(|object| !still.contains(object)) {
                if self.failing.remove(object) {
                    info!(?object, "what failed before is done: {operation}");
                }
            }
        }
        debug!(objects = objects.len(), failed = failed.len(), operation, "done");
        let mut told = 0;
        for (object, error) in failed {
            if error.is_missing_device() {
                debug!(?object, error = %Chain(&error), "the device is gone; it is looked at soon");
                self.look_soon(HURRIED);
            } else if self.failing.contains(&object) {
                debug!(error = %Chain(&error), ?object, "still failing");
            } else {
                told += 1;
                if told <= FEW {
                    warn!(error = %Chain(&error), ?object, "cannot {operation}; trying again");
                }
                self.failing.insert(object);
            }
        }
        if told > FEW {
            warn!(objects = told - FEW, "cannot {operation} as many others; trying again");
        }
    }
}

fn standing(state: &KernelState) -> Vec<Object> {
    let ground = state.ground();
    ground.backend.standing(ground.network)
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; the start was a sweep.
    ticks.reset();
    ticks
}
