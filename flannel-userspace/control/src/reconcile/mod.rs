//! The only loop: list the leases, follow them, list again from time to time; and keep what is in the kernel
//! equal to what the leases ask for.

mod announce;
mod configure;
mod follow;
mod go_over;
mod keeper;
mod memory;
mod metrics;
mod node;
mod order;
mod wanted;

use std::convert::Infallible;
use std::time::Duration;

use backon::ExponentialBackoff;
use flannel_model::error::Chain;
use flannel_model::lease::{Event, Snapshot};
use flannel_model::object::Object;
use flannel_model::underlay::Underlay;
use flannel_observe::{Condition, Conditions, Limitation, Vitals};
use flannel_registry::{EtcdMetrics, LeaseSource, WatchError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::configuration::Served;
use crate::kernel::{Kernel, NodeContext};
use crate::lease::Own;
use crate::pauses::growing;
use crate::peers::{DeletionGuard, Diff, Peer, PeerTable};
use crate::{backend, until};
pub use announce::Announcement;
use configure::Configured;
use flannel_model::vxlan::Formats;
use go_over::GoingOver;
use keeper::{Difference, Keeper, Knowledge, Task};
pub use memory::Memory;
pub use metrics::{PeerState, ReconcileMetrics, ResyncCause};
pub use node::{Node, Prepared};
pub use order::Order;
use wanted::Discard;

/// Why the known peers may be out of date.
const STALE: &str = "the registry is away; forwarding continues with the known peers";
/// Changes of more peers at once are summed up in the log.
const FEW: usize = 20;

/// What the loop works with.
pub struct Reconciler<R, K> {
    /// Where the leases stand.
    pub registry: R,
    /// What this host announces.
    pub announcement: Announcement,
    /// This host, kept in the kernel.
    pub node: Node<K>,
    /// The accepted peers.
    pub peers: PeerTable,
    /// What is known of them from an earlier life.
    pub known: Option<Diff>,
    /// Holds those of a mass deletion.
    pub deletion_guard: DeletionGuard,
    /// Keeps them for a later life.
    pub memory: Memory,
    /// Where it reports whether all this is so.
    pub vitals: Vitals,
    /// What is counted of it.
    pub metrics: ReconcileMetrics,
    /// What is counted of the registry.
    pub etcd_metrics: EtcdMetrics,
    /// Whether flannel's device and programs are where they should be.
    pub in_place: Condition,
    /// Told when every lease of the first listing was applied.
    pub synced: oneshot::Sender<()>,
    /// What the operator has it do.
    pub orders: UnboundedReceiver<Order>,
    /// The network's configuration, with which all this was made.
    pub configuration: Served,
    /// The formats of VXLAN in which packets are taken.
    pub formats: Option<Formats>,
}

/// Runs the loop, without end.
pub struct Loop<R: LeaseSource, K: Kernel> {
    registry: R,
    announcement: Announcement,
    peers: PeerTable,
    known: Option<Diff>,
    deletion_guard: DeletionGuard,
    memory: Memory,
    keeper: Keeper<K>,
    /// The underlay that connections to the registry go over.
    connected_over: Underlay,
    metrics: ReconcileMetrics,
    etcd_metrics: EtcdMetrics,
    conditions: Conditions,
    /// Told while peers are not reached.
    peers_limitation: Limitation,
    synced: Option<oneshot::Sender<()>>,
    orders: UnboundedReceiver<Order>,
    configuration: Configured,
    going_over: GoingOver,
    /// Whether the leases were ever listed.
    has_listed: bool,
    registry_is_away: bool,
    /// How long the last listing took.
    listing: Duration,
    /// Whether leases that were refused may be acceptable now.
    must_list: bool,
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// A loop that has not seen a lease yet.
    #[must_use]
    pub fn new(given: Reconciler<R, K>) -> Self {
        let Reconciler {
            registry,
            announcement,
            node,
            peers,
            known,
            deletion_guard,
            mut memory,
            vitals,
            metrics,
            etcd_metrics,
            in_place,
            synced,
            orders,
            configuration,
            formats,
        } = given;
        let Vitals { liveness, conditions } = vitals;
        conditions.set_stale(Some(STALE));
        let connected_over = node.links().underlay.clone();
        let heart = liveness.heart("reconciler");
        let configuration = Configured::new(configuration, formats);
        memory.go_over(configuration.formats_to_remember());
        let going_over = GoingOver::new(conditions.limitation("vxlan format"));
        let keeper = Keeper::new(node, in_place, heart, metrics.clone());
        Self {
            registry,
            announcement,
            peers,
            known,
            deletion_guard,
            memory,
            keeper,
            connected_over,
            metrics,
            etcd_metrics,
            peers_limitation: conditions.limitation("peers"),
            conditions,
            synced: Some(synced),
            orders,
            configuration,
            going_over,
            has_listed: false,
            registry_is_away: false,
            listing: Duration::ZERO,
            must_list: false,
        }
    }

    /// Lists and watches, without end. The caller drops the future to end it; what is in the kernel stays.
    pub async fn run(mut self) -> Infallible {
        if let Some(known) = self.known.take() {
            let known = self.resume_formats(known);
            self.want(known, &mut Discard).await;
            self.keeper.inform(Knowledge::Remembered);
            self.keeper.correct(Difference::Wish, Instant::now()).await;
            // With what was known the host forwards, whether or not the registry is there.
            self.tell_synced();
        }
        let mut pauses = growing(R::MANNERS.retry);
        let mut cause = ResyncCause::Start;
        loop {
            match self.list(cause).await {
                Ok(watch) => cause = self.follow(watch, &mut pauses).await,
                Err(error) => {
                    if self.has_listed {
                        cause = ResyncCause::WatchEnded;
                    }
                    self.report_registry(false, &Chain(&error));
                    self.pause(&mut pauses).await;
                }
            }
        }
    }

    fn tell_synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            // Nobody may be left to receive it.
            let _ = synced.send(());
        }
    }

    /// Waits for the next of `pauses`.
    async fn pause(&mut self, pauses: &mut ExponentialBackoff) {
        let pause = pauses.next().unwrap_or(R::MANNERS.retry.1);
        self.drive_while(sleep(pause)).await;
    }

    /// Does what there is to do in the kernel until `work` is done.
    async fn drive_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = until(self.deletion_guard.until()) => { self.expire().await; }
                Some(order) = self.orders.recv() => self.obey(order).await,
                change = self.configuration.change() => self.configure(change).await,
                () = until(self.going_over.due()) => self.follow_formats().await,
                () = until(self.memory.due()) => self.write_memory(),
                task = self.keeper.task() => self.run_task(task).await,
            }
        }
    }

    async fn run_task(&mut self, task: Task) {
        self.keeper.beat();
        match task {
            Task::Note(change) => {
                let before = self.keeper.failing();
                self.keeper.note(change).await;
                if self.keeper.failing() != before {
                    self.measure();
                }
            }
            Task::FindPods => self.keeper.find_pods().await,
            Task::Sweep => self.sweep().await,
        }
    }

    /// Brings everything in the kernel, and what this host announces, to what is wanted.
    async fn sweep(&mut self) {
        self.keeper.hold().await;
        let links = self.keeper.node().links();
        self.must_list |= self.peers.move_to(&links.underlay);
        if !self.connected_over.is_same_way(&links.underlay) {
            self.connected_over = links.underlay.clone();
            // Connections from the former address are dead without knowing it.
            self.registry.reconnect().await;
            self.must_list = true;
        }
        // By another backend peers are told only when everything is in its place.
        let is_of_other_backend = self.keeper.is_of_other_backend();
        if !is_of_other_backend {
            self.publish();
        }
        if let Err(error) = self.announcement.write_file() {
            warn!(error = %Chain(&error), "cannot keep the subnet file; trying again");
        }
        let since = Instant::now();
        let is_new = self.keeper.is_outdated();
        // By another route, a peer may have come onto the link, or left it.
        if is_new || self.keeper.depends_on_hop() && self.keeper.is_due() {
            let peers: Vec<Peer> = self.peers.peers().chain(self.deletion_guard.held()).copied().collect();
            self.keeper.want_again(&peers).await;
        }
        self.keeper.correct(if is_new { Difference::Wish } else { Difference::Damage }, since).await;
        if is_of_other_backend {
            self.publish();
        }
        if !self.registry_is_away {
            self.memory.refresh();
        }
        self.measure();
    }

    /// Announces this host as it is, not as it cannot be made at present.
    fn publish(&mut self) {
        let node = self.keeper.node();
        if node.is_built() {
            self.announcement.publish(&*node.context().backend, node.links());
        }
    }

    async fn take_snapshot(&mut self, snapshot: Snapshot) {
        self.announcement.lease.sync(&snapshot);
        let mut diff = self.peers.apply_snapshot(&snapshot);
        if !self.has_listed {
            diff = self.resume_formats(diff);
        }
        let revision = snapshot.revision;
        drop(snapshot);
        // The correction puts and removes all of it together.
        self.want(diff, &mut Discard).await;
        self.keeper.inform(Knowledge::Listed);
        self.keeper.correct(Difference::Wish, Instant::now()).await;
        self.memory.note();
        self.etcd_metrics.applied(revision);
        self.measure();
    }

    async fn take_events(&mut self, events: Vec<Event>) {
        let since = Instant::now();
        self.etcd_metrics.events_arrived();
        let revision = events.last().map(Event::mod_revision);
        let mut all = Diff::default();
        let mut touched = Vec::new();
        for event in events {
            self.announcement.lease.observe(&event);
            let Diff { added, changed, mut removed } = self.peers.apply_event(&event);
            // Who comes back within one batch was never away.
            all.removed.append(&mut removed);
            self.want(Diff { added, changed, removed }, &mut touched).await;
        }
        all.removed.retain(|gone| !self.peers.holds(gone.subnet));
        self.want(all, &mut touched).await;
        self.keeper.apply(touched).await;
        self.metrics.propagated(since.elapsed());
        if let Some(revision) = revision {
            self.etcd_metrics.applied(revision);
        }
        self.measure();
    }

    /// Tells how many leases are in which state.
    fn measure(&self) {
        let (failing, unreachable) = self.keeper.failing();
        let accepted = self.peers.count();
        let metrics = &self.metrics;
        metrics.set_peers(PeerState::Programmed, accepted.saturating_sub(failing + unreachable));
        metrics.set_peers(PeerState::Failing, failing);
        metrics.set_peers(PeerState::Unreachable, unreachable);
        metrics.set_peers(PeerState::Held, self.deletion_guard.held().count());
        let refused = self.peers.refused().count();
        metrics.set_peers(PeerState::Refused, refused);
        self.peers_limitation.set(shortfalls(accepted, failing, unreachable, refused));
    }

    /// Has the keeper want what `diff` says; the objects that touches go into `touched`.
    async fn want(&mut self, diff: Diff, touched: &mut (impl Extend<Object> + Send)) {
        if !diff.is_empty() {
            debug!(?diff, "the leases have changed");
            self.memory.note();
            if self.configuration.has_former() {
                self.memory.note_soon();
            }
        }
        let changed: Vec<Peer> = diff.changed.into_iter().map(|(_, after)| after).collect();
        log_peers(&diff.added, "known");
        log_peers(&changed, "changed");
        let mut peers = diff.added;
        peers.extend(changed);
        for peer in &peers {
            let moved = self.deletion_guard.arrive(peer);
            self.forget(&moved, touched);
        }
        self.keeper.want(&peers, touched).await;
        if diff.removed.is_empty() {
            return;
        }
        let verdict = self.deletion_guard.depart(diff.removed, self.peers.count());
        if verdict.holding > 0 {
            self.metrics.mass_delete_held();
            warn!(
                peers = verdict.holding, until = ?self.deletion_guard.until(),
                "a large part of the cluster vanished at once: forwarding to it continues for a while, in which its \
                 leases may come back (--mass-delete-threshold, --mass-delete-hold)"
            );
        }
        self.keeper.want(&verdict.bring_back, touched).await;
    }

    fn write_memory(&mut self) {
        let own = self.own();
        self.memory.write(own, self.peers.peers().chain(self.deletion_guard.held()));
    }

    /// The own lease as it is held now.
    fn own(&self) -> Own {
        let NodeContext { backend, .. } = self.keeper.node().context();
        let vteps = backend::vteps(&**backend, self.keeper.node().links());
        Own::of(&self.announcement.lease.state().borrow(), vteps)
    }

    /// Peers that vanished have not come back. Returns how many those are.
    async fn expire(&mut self) -> usize {
        let was_holding = self.deletion_guard.is_holding();
        let gone = self.deletion_guard.expire();
        if gone.is_empty() {
            return 0;
        }
        if was_holding {
            warn!(peers = gone.len(), "expiring the peers that vanished at once and have not come back");
        }
        let mut touched = Vec::new();
        self.forget(&gone, &mut touched);
        self.keeper.apply(touched).await;
        self.memory.note();
        self.measure();
        gone.len()
    }

    /// Has the keeper want `gone` no more; the objects that touches go into `touched`.
    fn forget(&mut self, gone: &[Peer], touched: &mut (impl Extend<Object> + Send)) {
        log_peers(gone, "removed");
        for peer in gone {
            self.keeper.forget(peer.subnet, touched);
        }
    }

    fn report_watch(&mut self, error: &WatchError) -> ResyncCause {
        self.etcd_metrics.watch_ended(error);
        match error {
            WatchError::Compacted { .. } | WatchError::Expired(_) => {
                info!("the registry has compacted the history: listing the leases again");
                ResyncCause::Compacted
            }
            error => {
                self.report_registry(false, &Chain(error));
                ResyncCause::WatchEnded
            }
        }
    }

    /// One line when the registry goes away, one when it is back.
    fn report_registry(&mut self, is_there: bool, error: &dyn std::fmt::Display) {
        match (is_there, self.registry_is_away) {
            (false, false) => {
                warn!(%error, "the registry is away; forwarding continues with the known peers");
            }
            (true, true) => info!("the registry is back"),
            _ => {}
        }
        self.registry_is_away = !is_there;
        self.etcd_metrics.set_connected(is_there);
        self.conditions.set_stale((!is_there).then_some(STALE));
    }
}

/// What is known and not written yet is written on the way out: the host may boot while the registry is away.
impl<R: LeaseSource, K: Kernel> Drop for Loop<R, K> {
    fn drop(&mut self) {
        if self.memory.due().is_some() {
            let own = self.own();
            self.memory.write_last(own, self.peers.peers().chain(self.deletion_guard.held()));
        }
    }
}

/// What to tell where peers are not reached. That single leases are refused is nothing about this host; that all are is.
fn shortfalls(accepted: usize, failing: usize, unreachable: usize, refused: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if failing > 0 {
        reasons.push(format!("the kernel refuses something of {failing} of {accepted}; the log says what"));
    }
    if unreachable > 0 {
        reasons.push(format!("there is no path to {unreachable} of {accepted}; the log says why"));
    }
    if accepted == 0 && refused > 0 {
        reasons
            .push(format!("all {refused} leases of other hosts are refused; `flannelctl leases` says why"));
    }
    reasons
}

/// Logs what happened to `peers`; of many, only their number.
fn log_peers(peers: &[Peer], what: &str) {
    if peers.len() > FEW {
        info!(peers = peers.len(), "many peers {what}");
        return;
    }
    for peer in peers {
        info!(subnet = %peer.subnet, public_ip = %peer.public_ip, "peer {what}");
    }
}
