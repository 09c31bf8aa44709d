//! Following the registry: what is listed once is followed by events. All leases are listed again from time to time, and
//! where there is no other way: every host does that, and a registry that was away must bear it.

use std::time::Duration;

use backon::ExponentialBackoff;
use flannel_model::error::Chain;
use flannel_model::lease::Revision;
use flannel_registry::{LeaseSource, RegistryError, Watch as _, WatchError};
use futures::FutureExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Loop, ResyncCause};
use crate::kernel::Kernel;
use crate::pauses::{growing, unhurried};
use crate::{chance, until};

/// A watch that lasted for this time shows that the registry is well.
const STEADY: Duration = Duration::from_secs(30);

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// Applies a listing, and opens the watch for what comes after it.
    pub(super) async fn list(&mut self, cause: ResyncCause) -> Result<R::Watch, RegistryError> {
        let revision = self.take_listing(cause).await?;
        let registry = self.registry.clone();
        self.drive_while(registry.watch(revision)).await
    }

    /// Applies a listing, and returns the revision it is of.
    async fn take_listing(&mut self, cause: ResyncCause) -> Result<Revision, RegistryError> {
        let registry = self.registry.clone();
        let since = Instant::now();
        let snapshot = self.drive_while(registry.list()).await?;
        self.listing = since.elapsed();
        self.report_registry(true, &"");
        let revision = snapshot.revision;
        self.take_snapshot(snapshot).await;
        self.metrics.resynced(cause);
        self.has_listed = true;
        self.tell_synced();
        Ok(revision)
    }

    /// When to list again after a listing now. Hosts that started together need not list together.
    fn next_listing(&self) -> Instant {
        Instant::now() + unhurried(self.listing, R::MANNERS.listing).mul_f64(chance::between(0.8..1.2))
    }

    /// Applies events until a listing is due, and returns why it is. A watch that ends is opened again where it ended.
    /// The pauses in between grow until a watch has lasted.
    pub(super) async fn follow(
        &mut self,
        mut watch: R::Watch,
        pauses: &mut ExponentialBackoff,
    ) -> ResyncCause {
        let mut due = self.next_listing();
        loop {
            let since = Instant::now();
            let error = match self.follow_until(due, &mut watch).await {
                Ok(cause) => return cause,
                Err(error) => error,
            };
            if since.elapsed() >= STEADY {
                *pauses = growing(R::MANNERS.retry);
            }
            let cause = self.report_watch(&error);
            self.pause(pauses).await;
            if error.loses_history() {
                return cause;
            }
            watch = self.resume(watch.revision(), &mut due, pauses).await;
            // All hosts come back to a registry that was away; they need not list at once.
            if due <= Instant::now() {
                due = Instant::now() + R::MANNERS.listing.mul_f64(chance::between(0.0..1.0));
            }
        }
    }

    /// Opens a watch for what comes after `revision`, however long the registry is away: that takes no listing. Where no
    /// watch can be had, the leases are listed when that is due, or if the registry is there and refuses.
    async fn resume(
        &mut self,
        mut revision: Revision,
        due: &mut Instant,
        pauses: &mut ExponentialBackoff,
    ) -> R::Watch {
        let registry = self.registry.clone();
        let mut was_away = false;
        loop {
            match self.drive_while(registry.watch(revision)).await {
                Ok(watch) => {
                    if was_away {
                        *pauses = growing(R::MANNERS.retry);
                    }
                    self.report_registry(true, &"");
                    return watch;
                }
                Err(error) => {
                    self.report_registry(false, &Chain(&error));
                    if error.is_absence() {
                        was_away = true;
                    } else {
                        *due = Instant::now();
                    }
                }
            }
            // Seldom, for a registry that comes back is better asked for what is new.
            if *due <= Instant::now() {
                revision = self.take_listing(ResyncCause::WatchEnded).await.unwrap_or(revision);
                *due = self.next_listing();
            }
            self.pause(pauses).await;
        }
    }

    /// Applies events until a listing is due or the watch ends.
    async fn follow_until(&mut self, due: Instant, watch: &mut R::Watch) -> Result<ResyncCause, WatchError> {
        while !std::mem::take(&mut self.must_list) {
            tokio::select! {
                biased;
                () = until(self.deletion_guard.until()) => { self.expire().await; }
                Some(order) = self.orders.recv() => self.obey(order).await,
                change = self.configuration.change() => self.configure(change).await,
                () = until(self.going_over.due()) => self.follow_formats().await,
                () = until(self.memory.due()) => self.write_memory(),
                () = sleep_until(due) => return Ok(ResyncCause::Periodic),
                events = watch.next() => {
                    self.take_events(events?).await;
                    // Leases that change all the time must not keep the kernel from being looked after.
                    if let Some(task) = self.keeper.task().now_or_never() {
                        self.run_task(task).await;
                    }
                }
                task = self.keeper.task() => self.run_task(task).await,
            }
        }
        Ok(ResyncCause::HostChanged)
    }
}
