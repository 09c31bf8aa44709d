//! How a host keeps its lease.

mod withdraw;

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use backon::ExponentialBackoff;
use flannel_model::family::Subnets;
use flannel_model::lease::{Attributes, EtcdLeaseId, Event, Key, Lease, Revision, Snapshot, SubnetKey};
use flannel_registry::{Expected, Found, LeaseStore, Written};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{LeaseState, OwnLease};
use crate::lease::LeaseMetrics;
use crate::pauses::growing;
use crate::until;
pub use withdraw::{WithdrawError, Withdrawn};

/// Least time between two writes of the lease, so that hosts that overwrite each other do it slowly.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Pauses after failed writes: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How long after it took over an existing lease a host yields to another host that insists on it.
const PROBATION: Duration = Duration::from_secs(60);
/// A lease that another wrote with the same content is written again with an own etcd lease within this time.
const ADOPTION: Duration = Duration::from_secs(60);

/// How many of its own etcd leases a host recognises.
const MOST_TERMS: usize = 64;

/// How long a lease lasts, and when it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct HoldConfig {
    /// How long the lease lasts after each renewal.
    pub ttl: Duration,
    /// How long before its end it is renewed: `--subnet-lease-renew-margin`. Where that is not below `ttl`,
    /// it is renewed after a third of `ttl`.
    pub renew_margin: Duration,
}

impl HoldConfig {
    fn renew_after(&self) -> Duration {
        match self.ttl.checked_sub(self.renew_margin) {
            Some(after) if !after.is_zero() => after,
            _ => self.ttl / 3,
        }
    }
}

/// The lease is another host's now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Lost {
    /// A host with another address holds the subnet.
    #[error(
        "lease of {subnets} lost: {} holds it now; restart to acquire another subnet, or delete that lease first",
        holder.public
    )]
    Taken {
        /// What was leased.
        subnets: Subnets,
        /// What the holder says of itself.
        holder: Box<Attributes>,
    },
    /// A host that announces the same address held it first.
    #[error(
        "lease of {subnets} yielded: another host announces PublicIP {}, too, and holds the lease; give every \
         host its own address (--public-ip, --iface)",
        holder.public
    )]
    Contested {
        /// What was leased.
        subnets: Subnets,
        /// What the holder says of itself.
        holder: Box<Attributes>,
    },
}

/// Passes what is seen of the lease in the registry to the task that holds it.
#[derive(Clone, Debug)]
pub struct LeaseHandle {
    key: SubnetKey,
    orders: mpsc::UnboundedSender<Order>,
    lease: watch::Receiver<LeaseState>,
}

#[derive(Debug)]
enum Order {
    Seen {
        found: Found,
        revision: Revision,
    },
    /// The same by a listing of this revision.
    Listed {
        found: Found,
        revision: Revision,
        listing: Revision,
        history_reset: bool,
    },
    Publish(Attributes),
    Withdraw(oneshot::Sender<Result<Withdrawn, WithdrawError>>),
}

impl LeaseHandle {
    /// Passes an event on if it is of the own lease; returns whether it was.
    pub fn observe(&self, event: &Event) -> bool {
        let is_own = event.key() == Key::Subnet(self.key);
        if is_own {
            let found = match event {
                Event::Put(lease) => Found::Lease(lease.clone()),
                Event::Rejected(rejected) => Found::Rejected(rejected.clone()),
                Event::Delete { .. } => Found::Nothing,
            };
            self.send(Order::Seen { found, revision: event.mod_revision() });
        }
        is_own
    }

    /// Passes on the own lease of a listing, or its absence.
    pub fn sync(&self, snapshot: &Snapshot) {
        let lease = snapshot.leases.iter().find(|lease| lease.key() == self.key);
        let rejected = snapshot.rejected.iter().find(|rejected| rejected.key == Key::Subnet(self.key));
        let (found, revision) = match (lease, rejected) {
            (Some(lease), _) => (Found::Lease(lease.clone()), lease.mod_revision),
            (None, Some(rejected)) => (Found::Rejected(rejected.clone()), rejected.mod_revision),
            (None, None) => (Found::Nothing, snapshot.revision),
        };
        let Snapshot { revision: listing, history_reset, .. } = *snapshot;
        self.send(Order::Listed { found, revision, listing, history_reset });
    }

    /// Changes the content of the lease: the host's address or VTEP changed.
    pub fn publish(&self, attributes: Attributes) {
        self.send(Order::Publish(attributes));
    }

    /// The lease as it is held, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.lease.clone()
    }

    fn send(&self, order: Order) {
        // Nobody listens once the lease is lost, which the task has reported.
        let _ = self.orders.send(order);
    }
}

/// The task that holds the lease.
pub struct LeaseTask<R> {
    registry: R,
    config: HoldConfig,
    orders: mpsc::UnboundedReceiver<Order>,
    state: watch::Sender<LeaseState>,
    lease: Lease,
    /// What is at the key, as far as known.
    expected: Expected,
    /// The revision of that knowledge; older events are ignored.
    revision: Revision,
    /// The revision of the last listing.
    listed: Revision,
    /// When to write the lease next; never, for an existing reservation.
    due: Option<Instant>,
    last_write: Instant,
    /// Until when to yield to another host.
    probation: Option<Instant>,
    /// The etcd lease of the last write by this task.
    granted: Option<EtcdLeaseId>,
    /// Whether another wrote the lease, so that it is not known how long it lasts.
    is_adopted: bool,
    /// The etcd leases with which this host wrote the lease, the latest last: by them it recognises its own lease,
    /// whatever the lease says.
    own_terms: VecDeque<EtcdLeaseId>,
    pauses: ExponentialBackoff,
    metrics: LeaseMetrics,
}

impl<R: LeaseStore> LeaseTask<R> {
    /// A task for the lease, to be [run](Self::run), and the handle to it.
    #[must_use]
    pub fn new(registry: R, config: HoldConfig, own: OwnLease) -> (Self, LeaseHandle) {
        let OwnLease { lease, since, reused } = own;
        let (sender, orders) = mpsc::unbounded_channel();
        let (state, receiver) =
            watch::channel(LeaseState { lease: lease.clone(), expires: None, renewal: None });
        let handle = LeaseHandle { key: lease.key(), orders: sender, lease: receiver };
        let mut task = Self {
            registry,
            config,
            orders,
            state,
            expected: Expected::Absent,
            revision: Revision::ZERO,
            listed: Revision::ZERO,
            due: None,
            last_write: since,
            probation: reused.then(|| since + PROBATION),
            own_terms: VecDeque::new(),
            granted: lease.term,
            is_adopted: false,
            pauses: growing(RETRY),
            metrics: LeaseMetrics::default(),
            lease: lease.clone(),
        };
        task.written(lease, since);
        (task, handle)
    }

    /// The same for a remembered lease, which lasts until `expires` and may not exist any more. It is written as soon as
    /// the registry is there, which may still know another address of this host.
    #[must_use]
    pub fn resume(
        registry: R,
        config: HoldConfig,
        remembered: Lease,
        expires: Option<Instant>,
    ) -> (Self, LeaseHandle) {
        let own = OwnLease { lease: remembered, since: Instant::now(), reused: false };
        let (mut task, handle) = Self::new(registry, config, own);
        task.expected = Expected::Absent;
        task.revision = Revision::ZERO;
        task.due = Some(Instant::now());
        // It may have ended, and its number be another's in an etcd that was made again.
        task.granted = None;
        let renewal = expires.and(task.due);
        task.state.send_modify(|state| (state.expires, state.renewal) = (expires, renewal));
        (task, handle)
    }

    /// Counts what others do to the lease in `metrics`.
    #[must_use]
    pub fn counting(mut self, metrics: LeaseMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Renews the lease in time, by the monotonic clock, and writes it again when it was deleted, expired or
    /// overwritten with junk. Returns when another host has it, and never once it is withdrawn.
    pub async fn run(mut self) -> Lost {
        loop {
            let outcome = tokio::select! {
                // Events first, then what follows from them.
                biased;
                Some(order) = self.orders.recv() => self.obey(order).await,
                () = until(self.due) => self.write().await,
            };
            if let Err(lost) = outcome {
                return lost;
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Lost> {
        match order {
            Order::Seen { found, revision } => self.see(found, revision),
            Order::Listed { found, revision, listing, history_reset } => {
                // Revisions only grow, but those of a registry that was created again or restored start again.
                if std::mem::replace(&mut self.listed, listing) > listing || history_reset {
                    self.revision = Revision::ZERO;
                }
                self.see(found, revision)
            }
            Order::Publish(attributes) if attributes == self.lease.attributes => Ok(()),
            Order::Publish(attributes) => {
                self.lease.attributes = attributes;
                self.write_soon();
                Ok(())
            }
            Order::Withdraw(reply) => {
                let outcome = self.withdraw().await;
                let is_withdrawn = outcome.is_ok();
                // Who asked may be gone.
                let _ = reply.send(outcome);
                // It is not written again, whatever is heard of it.
                if is_withdrawn { pending().await } else { Ok(()) }
            }
        }
    }

    fn see(&mut self, found: Found, revision: Revision) -> Result<(), Lost> {
        if revision > self.revision { self.judge(found, revision) } else { Ok(()) }
    }

    /// Decides what to do about content at the key that this task has not written.
    fn judge(&mut self, found: Found, revision: Revision) -> Result<(), Lost> {
        let subnets = self.lease.subnets;
        self.revision = revision;
        self.expected = Expected::Revision(revision);
        let is_conflict = match &found {
            Found::Nothing => false,
            Found::Rejected(_) => true,
            Found::Lease(lease) => lease.attributes != self.lease.attributes,
        };
        if is_conflict {
            self.metrics.conflict();
        }
        match found {
            Found::Nothing => {
                tracing::warn!(subnet = %subnets, "own lease was deleted or has expired: writing it again");
                self.expected = Expected::Absent;
                self.write_soon();
            }
            Found::Rejected(rejected) => {
                tracing::warn!(subnet = %subnets, reason = rejected.reason, "own lease was overwritten: writing it again");
                self.write_soon();
            }
            Found::Lease(lease) if self.is_former(&lease) => {
                tracing::info!(
                    subnet = %subnets, former = %lease.attributes.public, now = %self.lease.attributes.public,
                    "own lease names the former address: writing it again"
                );
                self.write_soon();
            }
            Found::Lease(lease) if !self.is_of_this_address(&lease) => {
                return Err(Lost::Taken { subnets, holder: Box::new(lease.attributes) });
            }
            Found::Lease(lease) if lease.attributes == self.lease.attributes => self.adopt(lease),
            Found::Lease(lease) if self.probation.is_some_and(|end| Instant::now() < end) => {
                return Err(Lost::Contested { subnets, holder: Box::new(lease.attributes) });
            }
            Found::Lease(lease) => {
                tracing::warn!(subnet = %subnets, found = ?lease.attributes, "own lease was overwritten: writing it again");
                self.write_soon();
            }
        }
        Ok(())
    }

    /// Whether this is the lease as this host wrote it when it had another address: it changed while the registry was away,
    /// or the registry was restored from an older copy.
    fn is_former(&self, lease: &Lease) -> bool {
        !self.is_of_this_address(lease) && lease.term.is_some_and(|term| self.own_terms.contains(&term))
    }

    /// Whether it announces the address that this host is known by.
    fn is_of_this_address(&self, lease: &Lease) -> bool {
        lease.attributes.public.first() == self.lease.attributes.public.first()
    }

    /// Somebody wrote the very same: the operator, to make a reservation of it; a request of ours whose
    /// answer was lost; or a host that announces the same address.
    fn adopt(&mut self, lease: Lease) {
        let soon = Instant::now() + ADOPTION.min(self.config.ttl / 3);
        self.due = lease.term.map(|_| soon);
        tracing::info!(subnet = %lease.subnets, expires = lease.term.is_some(), "own lease was written by another");
        // Until the write that is due has failed, no other end is known than that of the lease before.
        let before = self.state.borrow().expires;
        let expires = self.due.map(|due| before.unwrap_or(due + ADOPTION));
        self.state.send_replace(LeaseState { lease: lease.clone(), expires, renewal: self.due });
        self.is_adopted = true;
        self.lease = lease;
    }

    async fn write(&mut self) -> Result<(), Lost> {
        let since = Instant::now();
        self.last_write = since;
        let ttl = self.lease.term.map(|_| self.config.ttl);
        let key = self.lease.key();
        match self.registry.write(key, &self.lease.attributes, ttl, self.expected).await {
            Ok(Written::Done(lease)) => {
                self.written(lease, since);
                self.end_former_term().await;
            }
            Ok(Written::Refused(found)) => {
                let revision = match &found {
                    Found::Nothing => self.revision,
                    Found::Lease(lease) => lease.mod_revision,
                    Found::Rejected(rejected) => rejected.mod_revision,
                };
                return self.judge(found, revision);
            }
            Err(error) => {
                let pause = self.pauses.next().unwrap_or(RETRY.1).min(self.config.ttl / 3);
                tracing::warn!(subnet = %key.0, error = %error, ?pause, "own lease could not be written: trying again");
                self.keep(since).await;
                self.due = Some(Instant::now() + pause);
            }
        }
        Ok(())
    }

    /// A lease that cannot be written may still be kept alive: by an etcd without space, or one that lets this host
    /// write no more.
    async fn keep(&mut self, since: Instant) {
        let Some(term) = self.lease.term else { return };
        let is_kept = self.expected != Expected::Absent && matches!(self.registry.keep(term).await, Ok(true));
        let expires = match (is_kept, self.is_adopted) {
            (true, false) => Some(since + self.config.ttl),
            // It lasts for as long as another granted it, which may be over any time.
            (false, true) => Some(since),
            _ => return,
        };
        self.state.send_modify(|state| state.expires = expires);
    }

    /// No key is attached to the etcd lease of the write before any more. It would stay for as long as it was granted,
    /// and a lease that is written again and again would leave thousands.
    async fn end_former_term(&mut self) {
        let former = std::mem::replace(&mut self.granted, self.lease.term);
        if let Some(former) = former.filter(|former| Some(*former) != self.lease.term)
            && let Err(error) = self.registry.revoke(former).await
        {
            tracing::debug!(%error, %former, "a former term ends by itself");
        }
    }

    fn written(&mut self, lease: Lease, since: Instant) {
        self.revision = lease.mod_revision;
        self.expected = Expected::Revision(lease.mod_revision);
        self.note_term(lease.term);
        self.due = lease.term.map(|_| since + self.config.renew_after());
        self.pauses = growing(RETRY);
        let expires = lease.term.map(|_| since + self.config.ttl);
        self.is_adopted = false;
        self.state.send_replace(LeaseState { lease: lease.clone(), expires, renewal: self.due });
        self.lease = lease;
    }

    fn note_term(&mut self, term: Option<EtcdLeaseId>) {
        self.own_terms.extend(term);
        if self.own_terms.len() > MOST_TERMS {
            self.own_terms.pop_front();
        }
    }

    fn write_soon(&mut self) {
        self.due = Some(Instant::now().max(self.last_write + MIN_PAUSE));
    }
}

#[cfg(test)]
mod tests;
