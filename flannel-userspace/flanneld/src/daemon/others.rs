//! Rules of others that keep packets from their way, or seem to decide about the tunnel: told while they are there.

use std::convert::Infallible;
use std::time::Duration;

use flannel_control::throttle::LogThrottle;
use flannel_model::error::Chain;
use flannel_model::family::PerFamily;
use flannel_net::rules::{Concern, OtherRules, Rules, RulesError, RulesMonitor};
use flannel_observe::{Conditions, Limitation};
use ipnetwork::IpNetwork;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(200);
/// What nothing announces is found by a look as often as this.
const LOOK: Duration = Duration::from_secs(30);
/// In the long run looking takes at most this fraction of the time: a host can have tens of thousands of rules, and
/// programs that change them all the time.
const UNHURRIED: u32 = 20;
/// So much time may be spent on looking at once.
const ALLOWANCE: Duration = Duration::from_secs(10);
/// So many rules of a kind are told one by one.
const FEW: usize = 5;

/// Looks for rules of others.
pub(super) struct OtherRulesKeeper {
    watched: PerFamily<(Rules, Concern)>,
    monitor: RulesMonitor,
    without_effect: Limitation,
    refusing: Limitation,
    against_pods: Limitation,
    throttle: LogThrottle,
}

impl OtherRulesKeeper {
    pub(super) fn new(watched: PerFamily<(Rules, Concern)>, conditions: &Conditions) -> Self {
        let monitor = RulesMonitor::open().unwrap_or_else(|error| {
            info!(%error, "changes of rules are not announced here; they are looked at every {LOOK:?}");
            RulesMonitor::silent()
        });
        Self {
            watched,
            monitor,
            without_effect: conditions.limitation("firewall"),
            refusing: conditions.limitation("forward rules"),
            against_pods: conditions.limitation("direct routing"),
            throttle: LogThrottle::default(),
        }
    }

    /// Looks, without end.
    pub(super) async fn run(mut self) -> Infallible {
        let mut allowance = ALLOWANCE;
        let mut since = Instant::now();
        loop {
            allowance = (allowance + since.elapsed() / UNHURRIED).min(ALLOWANCE);
            since = Instant::now();
            match self.look().await {
                Ok(found) => self.tell(&found),
                Err(error) => {
                    let text = Chain(&error).to_string();
                    if self.throttle.should_log(&text) {
                        warn!(
                            "cannot find out whether other rules concern the network: {text}; trying again"
                        );
                    }
                }
            }
            let cost = since.elapsed();
            let debt = cost.saturating_sub(allowance);
            allowance = allowance.saturating_sub(cost);
            sleep(debt * UNHURRIED).await;
            // Nothing in time is as well as a change.
            let _ = timeout(LOOK.max(cost * UNHURRIED), self.monitor.changed()).await;
            sleep(SETTLE).await;
        }
    }

    async fn look(&self) -> Result<Vec<(IpNetwork, OtherRules)>, RulesError> {
        let mut found = Vec::new();
        for (rules, concern) in self.watched.values() {
            found.push((concern.network, rules.of_others(concern).await?));
        }
        Ok(found)
    }

    fn tell(&self, found: &[(IpNetwork, OtherRules)]) {
        let mut reasons = [Vec::new(), Vec::new(), Vec::new()];
        for (network, OtherRules { without_effect, refusing, against_pods }) in found {
            reasons[0].extend(sentences(without_effect, |rule| {
                format!(
                    "{rule} names the tunnel's port and has no effect: programs take tunnel packets before it and send \
                     them behind it; --guard decides which are let in"
                )
            }));
            reasons[1].extend(sentences(refusing, |chain| {
                format!(
                    "the chain {chain} refuses by default what this host forwards: accept packets from and to \
                     {network} there (firewalld: firewall-cmd --permanent --zone=trusted --add-source={network}, then \
                     firewall-cmd --reload)"
                )
            }));
            reasons[2].extend(sentences(against_pods, |rule| {
                format!(
                    "{rule} drops what peers send to containers: have Docker do without rules in raw \
                     (\"allow-direct-routing\": true in /etc/docker/daemon.json, Docker 28.2 and newer), and accept \
                     the rest before Docker's own rules (iptables -I DOCKER-USER -d {network} -j ACCEPT)"
                )
            }));
        }
        let [without_effect, refusing, against_pods] = reasons;
        set(&self.without_effect, without_effect);
        set(&self.refusing, refusing);
        set(&self.against_pods, against_pods);
    }
}

/// A sentence for each of a few, and one for the rest.
fn sentences<'a>(
    rules: &'a [String],
    sentence: impl Fn(&str) -> String + 'a,
) -> impl Iterator<Item = String> {
    let more = rules.len().checked_sub(FEW).filter(|more| *more > 0);
    let rest = more.map(|more| format!("and {more} more rules like these"));
    rules.iter().take(FEW).map(move |rule| sentence(rule)).chain(rest)
}

fn set(limitation: &Limitation, reasons: Vec<String>) {
    let told = reasons.clone();
    if !limitation.set(reasons) {
        return;
    }
    if told.is_empty() {
        info!("gone: rules of others that were told of before");
    }
    for reason in told {
        warn!("{reason}");
    }
}
