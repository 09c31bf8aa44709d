//! Keeps the kernel equal to what the peers ask for. Nothing is cleared and filled again: what is there is compared
//! with what is wanted, and the difference is corrected. What fails stays wanted and is tried again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::config::cidr::is_subnet_of;
use flannel_model::error::Chain;
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links};
use flannel_observe::{Condition, Heart};
use ipnetwork::IpNetwork;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::node::Node;
use super::wanted::{Discard, Wanted};
use crate::backend::{Backend, Unreachable};
use crate::kernel::{Heard, Kernel, KernelError};
use crate::pauses::unhurried;
use crate::peers::Peer;
use crate::reconcile::ReconcileMetrics;
use crate::throttle::LogBudget;
use crate::until;

/// How often the kernel is compared with what is wanted, whether or not anything happened.
const SWEEP: Duration = Duration::from_secs(10);
/// How often to check for detached programs, which the kernel does not announce.
const LOOK: Duration = Duration::from_secs(1);
/// How long announcements of the kernel are gathered, because they come in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// So many objects are put or removed between two signs of life.
const BATCH: usize = 2000;
/// The same after an announcement that can stand for more changes than it names.
const HURRIED: u32 = 50;
/// The same after a change of flannel's device: when it goes down its routes vanish without an announcement.
const AT_ONCE: u32 = 1;
/// How often within [`SWEEP`] an object is put back at once: two programs that both change an object must not fight
/// over it at full speed.
const PUT_BACKS: u32 = 10;
/// More failures at once are summed up in the log.
const FEW: usize = 20;

/// So many lines a minute about one kind of what others do to the kernel; more are counted.
const FEW_OF_A_KIND: usize = 5;

/// After this number of peers at once the wanted set is compacted.
const MANY: usize = 1000;

/// Keeps the kernel.
pub(super) struct Keeper<K> {
    node: Node<K>,
    wanted: Wanted,
    /// The links that `wanted` was made for.
    wanted_over: Links,
    /// Whether it was made by another backend than the present one.
    is_of_other_backend: bool,
    /// Since when what is wanted is known.
    knowledge: Knowledge,
    /// Failures that were reported, so that each is reported once.
    failing: BTreeSet<Object>,
    /// To how many peers those belong. It is counted when the failures change: to do that with each event would cost
    /// more the more peers there are.
    failing_peers: usize,
    /// Peers without a path to them, reported as well.
    unreachable: BTreeMap<IpNetwork, Unreachable>,
    /// Whether device and programs are where they should be.
    in_place: Condition,
    cannot_hold: bool,
    /// What others do to the kernel, as far as it is logged.
    budget: LogBudget,
    /// Since when and how often each object was put back.
    put_back: BTreeMap<Object, (Instant, u32)>,
    sweeps: Interval,
    looks: Interval,
    /// When to look where the pods are.
    fdb_due: Option<Instant>,
    /// When to compare interfaces, and everything else along with them if that is due.
    interfaces_due: Option<Instant>,
    /// When everything was compared last, and how long that took.
    compared: (Instant, Duration),
    comparison_due: Instant,
    /// Beats while there is much to do, too.
    heart: Heart,
    metrics: ReconcileMetrics,
}

/// How much is known of the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Knowledge {
    /// Nothing. What is in the kernel is not known to be wrong.
    None,
    /// What an earlier daemon has written down.
    Remembered,
    /// What the registry says.
    Listed,
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

impl<K: Kernel> Keeper<K> {
    /// Takes over what is in the kernel.
    pub(super) fn new(node: Node<K>, in_place: Condition, heart: Heart, metrics: ReconcileMetrics) -> Self {
        let wanted = Wanted::new(node.standing());
        Self {
            wanted_over: node.links().clone(),
            is_of_other_backend: false,
            node,
            wanted,
            knowledge: Knowledge::None,
            failing: BTreeSet::new(),
            failing_peers: 0,
            unreachable: BTreeMap::new(),
            in_place,
            cannot_hold: false,
            budget: LogBudget::of(FEW_OF_A_KIND),
            put_back: BTreeMap::new(),
            sweeps: every(SWEEP),
            looks: every(LOOK),
            fdb_due: None,
            interfaces_due: None,
            compared: (Instant::now(), Duration::ZERO),
            comparison_due: Instant::now() + SWEEP,
            heart,
            metrics,
        }
    }

    pub(super) const fn node(&self) -> &Node<K> {
        &self.node
    }

    /// Gives a sign of life.
    pub(super) fn beat(&self) {
        self.heart.beat();
    }

    /// Waits until there is something to do. Dropping the future loses nothing.
    pub(super) async fn task(&mut self) -> Task {
        loop {
            let due =
                self.interfaces_due.or((self.knowledge != Knowledge::None).then_some(self.comparison_due));
            return tokio::select! {
                // Many changes must not keep what is due from being done.
                biased;
                () = until(due) => Task::Sweep,
                () = until(self.fdb_due) => Task::FindPods,
                _ = self.sweeps.tick() => Task::Sweep,
                _ = self.looks.tick() => if self.node.is_whole() { continue } else { Task::Sweep },
                change = self.node.change() => Task::Note(change),
            };
        }
    }

    /// Repairs at once what is missing or replaced by an announcement, and notes what else to compare.
    pub(super) async fn note(&mut self, change: Change) {
        let soon = Instant::now() + SETTLE;
        match change {
            Change::Object { object, present } => {
                let in_place = self.wanted.in_place_of(&object);
                if let Some(wanted) = in_place.filter(|wanted| !present || **wanted != object).cloned() {
                    self.put_back(wanted).await;
                } else if self.is_way(&object) {
                    self.look_soon(HURRIED);
                }
            }
            Change::Routes if self.depends_on_hop() => self.look_soon(HURRIED),
            Change::Routes => {}
            Change::BridgeFdb => self.fdb_due = self.fdb_due.or(Some(soon)),
            Change::Interface(index) if self.is_own(index) => self.look_soon(AT_ONCE),
            Change::Interface(_) if self.depends_on_hop() => self.look_soon(HURRIED),
            Change::Interface(_) => self.interfaces_due = self.interfaces_due.or(Some(soon)),
            Change::Policies => self.interfaces_due = Some(Instant::now()),
            Change::Overrun => self.look_soon(HURRIED),
        }
    }

    pub(super) fn depends_on_hop(&self) -> bool {
        self.node.context().backend.depends_on_hop()
    }

    /// Has `backend`, of the kind of before, from the next [`Keeper::hold`] on.
    pub(super) fn configure(&mut self, backend: Box<dyn Backend>) {
        self.node.configure(backend);
        self.is_of_other_backend = true;
    }

    /// Makes the devices of `next` beside the present ones.
    pub(super) async fn prepare(&mut self, next: &dyn Backend) -> Result<(), KernelError> {
        self.node.prepare(next).await
    }

    /// When packets of each peer arrived last.
    pub(super) fn heard(&mut self) -> Result<Vec<Heard>, KernelError> {
        self.node.heard()
    }

    /// Whether what is wanted was made by another backend than the host has now.
    pub(super) const fn is_of_other_backend(&self) -> bool {
        self.is_of_other_backend
    }

    /// Whether what is wanted was made for other links or another backend than the host has now.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_of_other_backend || !self.wanted_over.are_same_way(self.node.links())
    }

    /// Puts an object back that somebody removed or replaced. One that is removed again and again is left to the next
    /// comparison.
    async fn put_back(&mut self, object: Object) {
        self.put_back.retain(|_, (since, _)| since.elapsed() < SWEEP);
        let (_, times) = self.put_back.entry(object.clone()).or_insert_with(|| (Instant::now(), 0));
        *times += 1;
        match (*times).cmp(&PUT_BACKS) {
            Ordering::Less => {
                if self.may_log(object.kind()) {
                    info!(?object, "somebody removed or replaced what is ours: putting it back");
                }
                self.metrics.repaired(&object);
                self.put_and_remove(vec![object], Vec::new()).await;
            }
            Ordering::Equal => {
                if self.may_log("removed again and again") {
                    warn!(
                        ?object,
                        "somebody removes or replaces it again and again: it is put back more slowly from now on"
                    );
                }
            }
            Ordering::Greater => {}
        }
    }

    /// Whether to log one more of `kind`. Of a kind that was not logged for a while the number is.
    fn may_log(&mut self, kind: &'static str) -> bool {
        let (may, unlogged) = self.budget.spend(kind);
        if let Some(lines) = unlogged {
            info!(kind, lines, "as many others were not logged in the minute before");
        }
        may
    }

    /// Whether objects are on the interface of that index.
    fn is_own(&self, index: u32) -> bool {
        let links = self.node.links();
        links.underlay.index == index || links.devices.values().any(|device| device.index == index)
    }

    /// Whether `object` is a route by which peers can be reached, and no route to what is behind them.
    fn is_way(&self, object: &Object) -> bool {
        let Object::Route { subnet, .. } = object else { return false };
        let network = self.node.context().networks.get((*subnet).into());
        self.depends_on_hop() && !network.is_some_and(|network| is_subnet_of(*subnet, network))
    }

    pub(super) async fn find_pods(&mut self) {
        self.fdb_due = None;
        if let Err(error) = self.node.kernel().find_pods().await {
            warn!(error = %Chain(&error), "cannot update the pods' ports; trying again");
        }
    }

    /// Makes device, address and programs what they were meant to be.
    pub(super) async fn hold(&mut self) {
        (self.interfaces_due, self.fdb_due) = (None, None);
        match self.node.hold().await {
            Ok(()) => {
                self.in_place.meet();
                if std::mem::take(&mut self.cannot_hold) && self.may_log("in place again") {
                    info!("flannel's device and programs are in their places again");
                }
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                if std::mem::replace(&mut self.cannot_hold, true) || !self.may_log("not in place") {
                    debug!(error, "still failing");
                } else {
                    warn!(error, "cannot keep flannel's device and programs in place; trying again");
                }
                self.in_place.fail(error);
            }
        }
    }

    /// Whether it is time to look for damage that nothing announced.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.comparison_due
    }

    /// Finds out again what each of all `peers` becomes.
    pub(super) async fn want_again(&mut self, peers: &[Peer]) {
        self.wanted = Wanted::new(self.node.standing());
        self.wanted_over = self.node.links().clone();
        self.is_of_other_backend = false;
        self.failing_peers = 0;
        self.want(peers, &mut Discard).await;
        self.failing.retain(|object| self.wanted.contains(object));
        self.failing_peers = self.wanted.peers_with(&self.failing);
    }

    /// Has `peers` reached from now on; the objects that touches go into `touched`.
    pub(super) async fn want(&mut self, peers: &[Peer], touched: &mut (impl Extend<Object> + Send)) {
        let mut without_way = 0;
        for (peer, hop) in peers.iter().zip(self.hops(peers).await) {
            let objects = match self.node.objects(peer, hop) {
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
            self.set(peer.subnet, objects, touched);
        }
        if peers.len() >= MANY {
            self.wanted.compact();
        }
        if without_way > FEW {
            warn!(peers = without_way - FEW, "as many others cannot be reached for such reasons");
        }
    }

    /// How each of `peers` is reached, where that matters.
    async fn hops(&mut self, peers: &[Peer]) -> Vec<Hop> {
        if self.depends_on_hop() {
            let addresses: Vec<IpAddr> = peers.iter().map(|peer| peer.public_ip).collect();
            match self.node.hops(&addresses).await {
                Ok(hops) => return hops,
                Err(error) => warn!(error = %Chain(&error), "taking the peers to be behind a router"),
            }
        }
        vec![Hop::Routed; peers.len()]
    }

    /// Has the peer of `subnet` reached no more; the objects that touches go into `touched`.
    pub(super) fn forget(&mut self, subnet: IpNetwork, touched: &mut (impl Extend<Object> + Send)) {
        self.unreachable.remove(&subnet);
        self.set(subnet, Vec::new(), touched);
    }

    fn set(&mut self, subnet: IpNetwork, objects: Vec<Object>, touched: &mut impl Extend<Object>) {
        self.failing_peers -= usize::from(self.wanted.has_any(subnet, &self.failing));
        self.wanted.set(subnet, objects, touched);
        self.failing_peers += usize::from(self.wanted.has_any(subnet, &self.failing));
    }

    /// Puts or removes each of `objects`, as it is wanted or not.
    pub(super) async fn apply(&mut self, mut objects: Vec<Object>) {
        objects.sort_unstable();
        objects.dedup();
        let (put, remove) = objects.into_iter().partition(|object| self.wanted.contains(object));
        self.put_and_remove(put, remove).await;
    }

    /// How many peers the kernel refuses something of, and how many have no path.
    pub(super) fn failing(&self) -> (usize, usize) {
        (self.failing_peers, self.unreachable.len())
    }

    /// Sets how complete the wanted set is.
    pub(super) fn inform(&mut self, knowledge: Knowledge) {
        self.knowledge = self.knowledge.max(knowledge);
    }

    /// Makes the kernel equal to what is wanted, once that is known. Damage that nothing announced is looked for
    /// when it is due. The work for it began at `since`.
    pub(super) async fn correct(&mut self, cause: Difference, since: Instant) {
        if self.knowledge == Knowledge::None || cause == Difference::Damage && since < self.comparison_due {
            return;
        }
        self.comparison_due = since + SWEEP;
        let actual = match self.node.list().await {
            Ok(actual) => actual,
            Err(error) => {
                warn!(error = %Chain(&error), "cannot compare the kernel with what is wanted; trying again");
                return;
            }
        };
        let (mut missing, mut stale) = self.wanted.differences(&actual);
        if self.knowledge == Knowledge::Remembered {
            // The kernel can know more than was remembered: peers that came or changed right before a daemon was killed.
            stale.clear();
            missing.retain(|object| !has_another(&actual, object));
        }
        drop(actual);
        self.compared = (since, since.elapsed());
        self.comparison_due = since + unhurried(since.elapsed(), SWEEP);
        if !(missing.is_empty() && stale.is_empty()) {
            debug!(missing = missing.len(), stale = stale.len(), "correcting the kernel");
        }
        if cause == Difference::Damage {
            // What the kernel refused before is missing for that reason.
            let damaged = missing.iter().chain(&stale).filter(|object| !self.failing.contains(object));
            damaged.for_each(|object| self.metrics.repaired(object));
        }
        for object in &stale {
            if self.may_log("stale") {
                info!(?object, "removing what looks like flannel's and belongs to no lease");
            }
        }
        self.put_and_remove(missing, stale).await;
        if let Err(error) = self.node.kernel().take_over() {
            warn!(error = %Chain(&error), "cannot replace the programs of another build; trying again");
        }
        self.metrics.corrected(since.elapsed());
    }

    /// Compares interfaces soon, and everything else in at most one part of `unhurried` of the time.
    fn look_soon(&mut self, unhurried: u32) {
        let soon = Instant::now() + SETTLE;
        let (since, cost) = self.compared;
        self.interfaces_due = self.interfaces_due.or(Some(soon));
        self.comparison_due = self.comparison_due.min(soon.max(since + cost * unhurried));
    }

    /// Puts first, each in the place of one with the same key, so that a change leaves no gap; then removes
    /// what is left of the old. Both are in order.
    async fn put_and_remove(&mut self, put: Vec<Object>, remove: Vec<Object>) {
        for put in put.chunks(BATCH) {
            let failed = self.node.kernel().put(put).await;
            self.report(put, "put", failed);
            self.heart.beat();
        }
        // What attracts traffic comes last, and goes first.
        for remove in remove.rchunks(BATCH) {
            let failed = self.node.kernel().remove(remove).await;
            self.report(remove, "remove", failed);
            self.heart.beat();
        }
    }

    fn report(&mut self, objects: &[Object], operation: &str, failed: Vec<(Object, KernelError)>) {
        let (mut is_changed, mut mended) = (false, Vec::new());
        if !self.failing.is_empty() {
            let still: BTreeSet<&Object> = failed.iter().map(|(object, _)| object).collect();
            for object in objects.iter().filter(|object| !still.contains(object)) {
                if self.failing.remove(object) {
                    is_changed = true;
                    mended.push(object);
                }
            }
        }
        for object in mended {
            if self.may_log("mended") {
                info!(?object, "what failed before is done: {operation}");
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
                if told <= FEW && self.may_log("refused") {
                    warn!(error = %Chain(&error), ?object, "cannot {operation}; trying again");
                }
                self.failing.insert(object);
                is_changed = true;
            }
        }
        if is_changed {
            self.failing_peers = self.wanted.peers_with(&self.failing);
        }
        if told > FEW {
            warn!(objects = told - FEW, "cannot {operation} for as many others; trying again");
        }
    }
}

/// Whether `actual`, which is in order, has something in the place of `object`.
fn has_another(actual: &[Object], object: &Object) -> bool {
    let (first, last) = object.place();
    let from = actual.partition_point(|other| *other < first);
    actual.get(from).is_some_and(|other| *other <= last)
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; the start was a sweep.
    ticks.reset();
    ticks
}
