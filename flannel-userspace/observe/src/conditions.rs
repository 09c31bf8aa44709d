//! Conditions that must be met for the host to forward. One that was met can fail again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Ready while every condition is met. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    all: Arc<watch::Sender<All>>,
}

#[derive(Debug, Default)]
struct All {
    conditions: Vec<State>,
    limits: Vec<Limit>,
    stale: Option<&'static str>,
    outdated: Option<String>,
    /// What stands in the way of what is not met yet.
    obstacle: Option<String>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    status: Status,
    since: Instant,
}

/// Whether a condition is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was never met yet.
    Pending,
    /// It is so.
    Met,
    /// It is not met any more, and why.
    Failed(String),
}

/// One of the [`Conditions`], held by the part that knows whether it is met. Until then it is pending.
#[derive(Clone, Debug)]
pub struct Condition {
    conditions: Conditions,
    place: usize,
}

/// What the host may come to forward without, held by the part that knows whether it does.
#[derive(Clone, Debug)]
pub struct Limitation {
    conditions: Conditions,
    without: &'static str,
}

/// What the host forwards without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it goes without.
    pub without: &'static str,
    /// Why, and what is done instead.
    pub reason: String,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "without {}: {}", self.without, self.reason)
    }
}

/// A condition that was met and is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the condition.
    pub condition: &'static str,
    /// Why.
    pub reason: String,
    /// For how long.
    pub age: Duration,
}

impl Conditions {
    /// Adds a condition, which is pending. Add all of them before anybody can ask.
    pub fn add(&self, name: &'static str) -> Condition {
        let mut place = 0;
        self.all.send_modify(|all| {
            place = all.conditions.len();
            all.conditions.push(State { name, status: Status::Pending, since: Instant::now() });
        });
        Condition { conditions: self.clone(), place }
    }

    /// The host is ready, but forwards without something as long as the daemon runs.
    pub fn limit(&self, limit: Limit) {
        self.all.send_modify(|all| all.limits.push(limit));
    }

    /// For a limit that may come and go. `without` is what the host then forwards without.
    #[must_use]
    pub fn limitation(&self, without: &'static str) -> Limitation {
        Limitation { conditions: self.clone(), without }
    }

    /// Sets why the host's peers may be out of date; `None` if they are not.
    pub fn set_stale(&self, reason: Option<&'static str>) {
        self.all.send_if_modified(|all| std::mem::replace(&mut all.stale, reason) != reason);
    }

    /// Sets what stands in the way of what is not met yet; `None` if nothing does.
    pub fn set_obstacle(&self, obstacle: Option<String>) {
        self.all.send_if_modified(|all| {
            let is_news = all.obstacle != obstacle;
            all.obstacle = obstacle;
            is_news
        });
    }

    /// What stands in the way of what is not met yet.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.all.borrow().obstacle.clone()
    }

    /// Why the host's peers may be out of date.
    #[must_use]
    pub fn stale(&self) -> Option<&'static str> {
        self.all.borrow().stale
    }

    /// Sets why the host is served by another configuration than the network's; `None` if it is not. It forwards all the
    /// same.
    pub fn set_outdated(&self, reason: Option<String>) {
        self.all.send_if_modified(|all| {
            let is_changed = all.outdated != reason;
            all.outdated = reason;
            is_changed
        });
    }

    /// Why the host is served by another configuration than the network's.
    #[must_use]
    pub fn outdated(&self) -> Option<String> {
        self.all.borrow().outdated.clone()
    }

    /// Names of the conditions that are not met, in the order in which they were added.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        let all = self.all.borrow();
        all.conditions.iter().filter(|state| state.status != Status::Met).map(|state| state.name).collect()
    }

    /// Those of them that were met before.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let failure = |state: &State| match &state.status {
            Status::Failed(reason) => {
                Some(Failure { condition: state.name, reason: reason.clone(), age: state.since.elapsed() })
            }
            Status::Pending | Status::Met => None,
        };
        self.all.borrow().conditions.iter().filter_map(failure).collect()
    }

    /// Every condition in the order in which they were added: its name, its status, and for how long it has had that.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, Status, Duration)> {
        let all = self.all.borrow();
        all.conditions.iter().map(|state| (state.name, state.status.clone(), state.since.elapsed())).collect()
    }

    /// What the host forwards without.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        self.all.borrow().limits.clone()
    }

    /// All of it in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let failures = self.failures();
        let pending = self.pending();
        if !failures.is_empty() {
            let texts =
                failures.iter().map(|failure| format!("not so: {}: {}", failure.condition, failure.reason));
            texts.collect::<Vec<_>>().join("; ")
        } else if !pending.is_empty() {
            let obstacle = self.all.borrow().obstacle.as_ref().map(|obstacle| format!(", for {obstacle}"));
            format!("not ready yet, pending: {}{}", pending.join(", "), obstacle.unwrap_or_default())
        } else {
            let ready = ["ready".to_owned()].into_iter();
            let limits = self.limits().iter().map(Limit::to_string).collect::<Vec<_>>();
            ready.chain(limits).chain(self.outdated()).collect::<Vec<_>>().join("; ")
        }
    }

    /// Receives changes; several can be received as one.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.all.subscribe())
    }
}

/// See [`Conditions::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<All>);

impl Changes {
    /// Waits for a change since the last one; `None` when nobody is left to make one.
    pub async fn next(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }
}

impl Limitation {
    /// Sets for which reasons the host forwards without; none while it does not have to. Returns whether that is new.
    pub fn set(&self, reasons: Vec<String>) -> bool {
        self.conditions.all.send_if_modified(|all| {
            let is_own = |limit: &&Limit| limit.without == self.without;
            if all.limits.iter().filter(is_own).map(|limit| &limit.reason).eq(&reasons) {
                return false;
            }
            all.limits.retain(|limit| !is_own(&limit));
            all.limits.extend(reasons.into_iter().map(|reason| Limit { without: self.without, reason }));
            true
        })
    }
}

impl Condition {
    /// It is met.
    pub fn meet(&self) {
        self.set(Status::Met);
    }

    /// It is not met any more.
    pub fn fail(&self, reason: String) {
        self.set(Status::Failed(reason));
    }

    fn set(&self, status: Status) {
        self.conditions.all.send_if_modified(|all| {
            let Some(state) = all.conditions.get_mut(self.place) else { return false };
            if state.status == status {
                return false;
            }
            // Another reason does not restart the failure.
            if !matches!((&state.status, &status), (Status::Failed(_), Status::Failed(_))) {
                state.since = Instant::now();
            }
            state.status = status;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::{Conditions, Limit, Status};

    #[test]
    fn ready_when_the_last_condition_is_met() {
        let conditions = Conditions::default();
        let lease = conditions.add("lease acquired");
        let file = conditions.add("subnet file written");
        assert_eq!(conditions.pending(), ["lease acquired", "subnet file written"]);
        assert!(conditions.failures().is_empty(), "nothing was met yet");
        lease.meet();
        assert_eq!(conditions.clone().pending(), ["subnet file written"]);
        assert_eq!(conditions.summary(), "not ready yet, pending: subnet file written");
        conditions.set_obstacle(Some("etcd is away".to_owned()));
        assert_eq!(conditions.summary(), "not ready yet, pending: subnet file written, for etcd is away");
        conditions.set_obstacle(None);
        file.meet();
        assert!(conditions.pending().is_empty());
        assert_eq!(conditions.summary(), "ready");
    }

    #[test]
    fn what_was_met_can_fail_and_be_met_again() {
        let conditions = Conditions::default();
        let programs = conditions.add("programs attached");
        programs.meet();
        programs.fail("refused".to_owned());
        std::thread::sleep(Duration::from_millis(20));
        programs.fail("refused again".to_owned());
        let [failure] = &conditions.failures()[..] else { panic!("{:?}", conditions.failures()) };
        assert_eq!((failure.condition, failure.reason.as_str()), ("programs attached", "refused again"));
        assert!(failure.age >= Duration::from_millis(20), "another reason is no other failure: {failure:?}");
        assert_eq!(conditions.pending(), ["programs attached"]);
        assert_eq!(conditions.summary(), "not so: programs attached: refused again");
        let [(name, Status::Failed(reason), _)] = &conditions.all()[..] else {
            panic!("{:?}", conditions.all())
        };
        assert_eq!((*name, reason.as_str()), ("programs attached", "refused again"));
        programs.meet();
        assert!(conditions.pending().is_empty() && conditions.failures().is_empty());
        assert!(matches!(conditions.all()[..], [(_, Status::Met, _)]));
    }

    #[test]
    fn a_limit_leaves_the_host_ready() {
        let conditions = Conditions::default();
        conditions.limit(Limit { without: "programs", reason: "bpf() is refused".to_owned() });
        assert!(conditions.pending().is_empty());
        assert_eq!(conditions.summary(), "ready; without programs: bpf() is refused");
    }

    #[test]
    fn another_configuration_leaves_the_host_ready() {
        let conditions = Conditions::default();
        let mut changes = conditions.changes();
        conditions.set_outdated(Some("Network from a to b".to_owned()));
        assert!(conditions.pending().is_empty());
        assert_eq!(conditions.summary(), "ready; Network from a to b");
        assert!(changes.next().now_or_never().is_some());
        conditions.set_outdated(None);
        assert_eq!(conditions.summary(), "ready");
    }

    #[test]
    fn a_limitation_comes_and_goes() {
        let conditions = Conditions::default();
        conditions.limit(Limit { without: "programs", reason: "bpf() is refused".to_owned() });
        let firewall = conditions.limitation("firewall");
        assert!(!firewall.set(Vec::new()), "nothing has changed");
        assert!(firewall.set(vec!["one".to_owned(), "two".to_owned()]));
        assert!(!firewall.set(vec!["one".to_owned(), "two".to_owned()]), "nothing has changed");
        let summary =
            "ready; without programs: bpf() is refused; without firewall: one; without firewall: two";
        assert_eq!(conditions.summary(), summary);
        assert!(firewall.set(Vec::new()));
        assert_eq!(conditions.summary(), "ready; without programs: bpf() is refused");
    }

    #[test]
    fn two_conditions_of_one_name_are_two() {
        let conditions = Conditions::default();
        let (first, second) = (conditions.add("programs attached"), conditions.add("programs attached"));
        first.meet();
        assert_eq!(conditions.pending(), ["programs attached"]);
        second.meet();
        assert!(conditions.pending().is_empty());
    }

    #[test]
    fn only_changes_are_heard() {
        let conditions = Conditions::default();
        let lease = conditions.add("lease acquired");
        let mut changes = conditions.changes();
        assert!(changes.next().now_or_never().is_none());
        lease.meet();
        assert!(changes.next().now_or_never().is_some());
        lease.meet();
        assert!(changes.next().now_or_never().is_none(), "nothing has changed");
    }
}
