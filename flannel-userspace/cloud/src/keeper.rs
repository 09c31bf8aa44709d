//! Keeps what the cloud's route tables say of this host as it should be, without end.

mod judge;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use flannel_control::cloud_metrics::Repair;
use flannel_control::lease::LeaseState;
use flannel_control::throttle::LogThrottle;
use flannel_model::config::cidr::overlap;
use flannel_model::error::Chain;
use flannel_model::family::Subnets;
use flannel_model::underlay::Underlay;
use flannel_registry::LeaseSource;
use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::judge::{Need, need, removable, unreachable_ranges};
pub use self::report::{Reports, Seen};
use crate::backoff::Backoff;
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Trouble, View, herd};

/// Most routes of dead hosts that one look removes: each takes a call.
const MOST_REMOVED: usize = 20;
/// How long the registry may take to say what is leased.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks after the cloud's route tables. It never ends for what a cloud does: what fails is tried again, and what is in the
/// tables goes on forwarding.
pub struct Keeper<S> {
    /// The tables.
    pub tables: Box<dyn RouteTables>,
    /// Says which subnets are leased, before the route of a dead host is removed.
    pub leases: S,
    /// The whole network.
    pub networks: Subnets,
    /// What tells the cluster from others, and is the same for all hosts of it.
    pub cluster: String,
    /// The own lease.
    pub lease: watch::Receiver<LeaseState>,
    /// The interface that the cloud knows.
    pub underlay: watch::Receiver<Underlay>,
    /// About how often to look.
    pub period: Duration,
    /// Where it tells what it sees.
    pub reports: Reports,
    /// What it remembers between two looks.
    pub memory: Memory,
}

/// What is remembered between two looks.
#[derive(Default)]
pub struct Memory {
    backoff: Backoff,
    /// Routes that this daemon has put, or found in place.
    own: BTreeSet<(String, IpNetwork)>,
    /// Routes that nobody needed at the last look.
    useless: BTreeSet<(String, IpNetwork)>,
    /// What was leased when this began, until the first look: many hosts may have begun together.
    began_with: Option<Vec<IpNetwork>>,
    /// Whether the cloud was asked to let this host forward, though it does not say whether it does.
    asked_to_forward: bool,
    /// Whether the tables could be read at the last look.
    has_seen: bool,
    throttle: LogThrottle,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything is as it should be.
    InStep,
    /// It was not.
    PutRight,
}

impl<S: LeaseSource> Keeper<S> {
    /// Looks and puts right, without end.
    pub async fn run(mut self) -> Infallible {
        let leased = leased(&self.leases).await.unwrap_or_default();
        sleep(herd::start(leased.len())).await;
        self.memory.began_with = Some(leased);
        loop {
            let pause = self.look().await;
            self.wait(pause).await;
        }
    }

    /// Waits until it is time for another look, or until this host is another one for the cloud.
    async fn wait(&mut self, pause: Duration) {
        let (addresses, subnets) = (self.host().addresses, self.lease.borrow().lease.subnets);
        let moved = async {
            // Where nobody can tell of another one there is none.
            if self.underlay.wait_for(|underlay| underlay.addresses != addresses).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let leased = async {
            if self.lease.wait_for(|state| state.lease.subnets != subnets).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = moved => info!("the underlay has another address: looking for it in the cloud"),
            () = leased => info!("another subnet is leased: looking for its route in the cloud"),
        }
    }

    fn host(&self) -> Host {
        Host { addresses: self.underlay.borrow().addresses, cluster: self.cluster.clone() }
    }

    /// One look. Returns how long to wait for the next one.
    async fn look(&mut self) -> Duration {
        match self.repair().await {
            Ok(outcome) => {
                self.memory.backoff.reset();
                self.reports.succeeded();
                match outcome {
                    Outcome::InStep => {
                        self.reports.contested(None);
                        herd::period(self.period)
                    }
                    Outcome::PutRight => herd::confirmation(self.period),
                }
            }
            Err(error) => {
                let text = error.to_string();
                let is_blind =
                    error.is(Trouble::Conflict) || !self.memory.has_seen && error.trouble.is_blindness();
                self.reports.failed(&error, is_blind);
                let pause = self.memory.backoff.next();
                if self.memory.throttle.should_log(&text) {
                    warn!("cannot keep the cloud's route tables: {text}; trying again");
                }
                pause
            }
        }
    }

    async fn repair(&mut self) -> Result<Outcome, CloudError> {
        let host = self.host();
        self.memory.has_seen = false;
        let view = self.tables.read(&host).await?;
        self.memory.has_seen = true;
        self.reports.saw(&view);
        unreachable_ranges(&view, &self.networks)?;
        self.wait_for_others(&view).await;
        let may_forward = self.ensure_forwarding(&view).await;
        let ensured = self.ensure_routes(&view).await;
        // Room for the own route may be found by removing one of a dead host.
        let removed = self.remove_useless(&view).await;
        may_forward?;
        let put_right = ensured?;
        self.reports.cleared(removed.err().as_ref());
        Ok(if put_right { Outcome::PutRight } else { Outcome::InStep })
    }

    /// Where this host, as others that begin with it, has to change something, each has its own time for that.
    async fn wait_for_others(&mut self, view: &View) {
        let Some(leased) = self.memory.began_with.take() else { return };
        let own = self.lease.borrow().lease.subnets;
        let missing = |table: &Table| {
            let lacks = |subnet: &IpNetwork| !table.routes.iter().any(|route| route.destination == *subnet);
            let is_missing_own = own.iter().any(|own| lacks(&own));
            if is_missing_own { leased.iter().filter(|subnet| lacks(subnet)).count() } else { 0 }
        };
        if let Some(hosts) = view.tables.iter().map(missing).max().filter(|hosts| *hosts > 1) {
            sleep(herd::change(hosts)).await;
        }
    }

    async fn ensure_forwarding(&mut self, view: &View) -> Result<(), CloudError> {
        match &view.forwarding {
            Forwarding::Allowed => self.reports.forwarding(None),
            Forwarding::Forbidden => {
                self.tables.allow_forwarding().await?;
                info!(target = view.target, "had the cloud let this host forward packets of its pods");
                self.reports.repaired(Repair::Forwarding);
                self.reports.forwarding(None);
            }
            Forwarding::Unknown(reason) if !self.memory.asked_to_forward => {
                let asked = self.tables.allow_forwarding().await;
                self.memory.asked_to_forward = asked.is_ok();
                self.reports.forwarding(asked.err().map(|error| format!("{reason}; {error}")));
            }
            Forwarding::Unknown(_) => {}
        }
        Ok(())
    }

    /// Has every table lead to this host; returns whether one did not. A table that cannot be mended keeps no other from it.
    async fn ensure_routes(&mut self, view: &View) -> Result<bool, CloudError> {
        let subnets: Vec<IpNetwork> = self.lease.borrow().lease.subnets.iter().collect();
        let (mut put_right, mut first_error) = (false, None);
        for table in &view.tables {
            for subnet in &subnets {
                match self.ensure_route(table, *subnet).await {
                    Ok(changed) => put_right |= changed,
                    // More calls would be refused as well.
                    Err(error) if error.is(Trouble::Throttled) => return Err(error),
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        first_error.or_else(|| view.trouble.clone()).map_or(Ok(put_right), Err)
    }

    async fn ensure_route(&mut self, table: &Table, subnet: IpNetwork) -> Result<bool, CloudError> {
        let place = (table.id.clone(), subnet);
        let (present, repair) = match need(table, subnet)? {
            Need::Nothing => {
                self.memory.own.insert(place);
                return Ok(false);
            }
            Need::Put => (None, Repair::Put),
            Need::Replace(route) => {
                self.tell_of_contest(table, route);
                (Some(route), Repair::Replaced)
            }
        };
        self.tables.put(table, subnet, present).await?;
        info!(table = table.id, %subnet, instead_of = ?present.map(|route| &route.target), "put a route in the cloud");
        self.reports.repaired(repair);
        self.memory.own.insert(place);
        Ok(true)
    }

    /// A route that led here and leads to another running host was turned by somebody.
    fn tell_of_contest(&mut self, table: &Table, route: &Route) {
        let was_own = self.memory.own.contains(&(table.id.clone(), route.destination));
        let reasons = (was_own && !route.is_dead).then(|| {
            format!(
                "somebody has turned the route to {} in {} to {:?}, and it is turned back: does another cluster with the \
                 same Network use this route table? Give each a Network of its own",
                route.destination, table.id, route.target
            )
        });
        if let Some(reason) = &reasons {
            warn!("{reason}");
        }
        self.reports.contested(reasons);
    }

    /// Removes routes of dead hosts that nobody needed at this look and the one before.
    async fn remove_useless(&mut self, view: &View) -> Result<(), CloudError> {
        let lease = self.lease.borrow().lease.clone();
        let found: Vec<(&Table, &Route)> = removable(view, &self.networks, &lease.subnets).collect();
        let again = |(table, route): &(&Table, &Route)| {
            self.memory.useless.contains(&(table.id.clone(), route.destination))
        };
        let due: Vec<(&Table, &Route)> = found.iter().copied().filter(again).take(MOST_REMOVED).collect();
        self.memory.useless =
            found.into_iter().map(|(table, route)| (table.id.clone(), route.destination)).collect();
        if due.is_empty() {
            return Ok(());
        }
        // As late as can be: whoever leases such a subnet from now on puts its route there, and looks after it.
        let leased = leased(&self.leases).await.map_err(|reason| {
            let message = format!("{reason}; no route of a dead host is removed");
            CloudError::new(Trouble::Unreachable, "list leases", message)
        })?;
        // A registry that does not know this host knows nothing of others either.
        if !lease.subnets.iter().all(|own| leased.contains(&own)) {
            return Ok(());
        }
        for (table, route) in due {
            if leased.iter().any(|leased| overlap(*leased, route.destination)) {
                continue;
            }
            self.tables.remove(table, route).await?;
            info!(
                table = table.id, subnet = %route.destination, target = ?route.target,
                "removed the route of a host that is gone from the cloud"
            );
            self.reports.repaired(Repair::Removed);
        }
        Ok(())
    }
}

/// What is leased now.
async fn leased<S: LeaseSource>(leases: &S) -> Result<Vec<IpNetwork>, String> {
    match timeout(PATIENCE, leases.list()).await {
        Ok(Ok(snapshot)) => Ok(snapshot.subnets()),
        Ok(Err(error)) => Err(Chain(&error).to_string()),
        Err(_) => Err("the registry does not answer".to_owned()),
    }
}
