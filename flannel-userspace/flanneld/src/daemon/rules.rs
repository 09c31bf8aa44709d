//! The rules and the blackhole route: put in place before the subnet file announces the network, and kept from then on.

use std::convert::Infallible;
use std::time::Duration;

use flannel_common::maps::Guard;
use flannel_control::backend::{self, Tunnel};
use flannel_control::configuration::Served;
use flannel_model::config::NetworkConfig;
use flannel_model::error::Chain;
use flannel_model::family::{PerFamily, Subnets};
use flannel_net::Netlink;
use flannel_net::rules::{Choice, Rules, RulesError};
use flannel_observe::{Conditions, Limitation};
use tokio::time::sleep;
use tracing::{info, warn};

use super::DaemonError;
use crate::cli::{Options, RuleOptions};
use flannel_control::throttle::LogThrottle;

/// The rules of this host's subnets, as a daemon with `options` keeps them beside `tunnel`.
pub(super) fn rules(
    options: &Options,
    config: &NetworkConfig,
    tunnel: Option<Tunnel>,
    subnets: &Subnets,
) -> PerFamily<Rules> {
    Rules::of_host(choice(options, tunnel), &options.etcd.prefix, config, subnets)
}

/// Which rules a daemon with `options` keeps beside `tunnel`.
pub(super) fn choice(options: &Options, tunnel: Option<Tunnel>) -> Choice {
    let RuleOptions { masquerade, fully_random, forward, .. } = options.rules;
    let tunnel_port = tunnel.filter(|_| options.guard != Guard::Off).map(Tunnel::port);
    Choice { masquerade, fully_random, forward, tunnel_port }
}

/// Looks after the rules of this host's subnets.
pub(super) struct RuleKeeper {
    rules: PerFamily<Rules>,
    choice: Choice,
    etcd_prefix: String,
    subnets: Subnets,
    /// Says what rules are written with.
    configuration: Served,
    netlink: Netlink,
    blackholes: Subnets,
    resync: Duration,
    throttle: LogThrottle,
    /// Told while rules cannot be kept.
    limitation: Limitation,
}

impl RuleKeeper {
    /// Puts the rules in place. If only forward rules fail, the daemon still starts: most hosts accept these packets
    /// anyway.
    pub(super) async fn start(
        options: &Options,
        mut configuration: Served,
        tunnel: Option<Tunnel>,
        subnets: &Subnets,
        netlink: Netlink,
        conditions: &Conditions,
    ) -> Result<Self, DaemonError> {
        let RuleOptions { masquerade, resync, blackhole, .. } = options.rules;
        let (choice, etcd_prefix) = (choice(options, tunnel), options.etcd.prefix.clone());
        let config = configuration.borrow_and_update().network.clone();
        let mut keeper = Self {
            rules: Rules::of_host(choice, &etcd_prefix, &config, subnets),
            choice,
            etcd_prefix,
            subnets: *subnets,
            configuration,
            netlink,
            blackholes: if blackhole { *subnets } else { Subnets::NONE },
            resync,
            throttle: LogThrottle::default(),
            limitation: conditions.limitation("rules"),
        };
        match keeper.ensure().await {
            Err(error) if masquerade => return Err(error.into()),
            ensured => keeper.report(ensured),
        }
        keeper.keep_blackholes().await;
        Ok(keeper)
    }

    /// Checks and repairs, without end.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            tokio::select! {
                () = sleep(self.resync) => {}
                Ok(()) = self.configuration.changed() => self.configure(),
            }
            let ensured = self.ensure().await;
            self.report(ensured);
            self.keep_blackholes().await;
        }
    }

    /// Rules are written as the configuration says now. What wrote them before removes its own, once the others are in
    /// place.
    fn configure(&mut self) {
        let configuration = self.configuration.borrow_and_update();
        if self.choice.tunnel_port.is_some() {
            self.choice.tunnel_port = backend::of(&configuration.backend).tunnel().map(Tunnel::port);
        }
        self.rules = Rules::of_host(self.choice, &self.etcd_prefix, &configuration.network, &self.subnets);
    }

    /// Puts the rules of every family in place; returns what was put right, in words.
    async fn ensure(&self) -> Result<String, RulesError> {
        let mut repairs = Vec::new();
        for rules in self.rules.values() {
            repairs.push(rules.ensure().await?.to_string());
        }
        repairs.retain(|repair| !repair.is_empty());
        Ok(repairs.join(", "))
    }

    fn report(&mut self, ensured: Result<String, RulesError>) {
        let trouble = ensured.as_ref().err().map(|error| format!("they cannot be kept: {}", Chain(error)));
        self.limitation.set(trouble.into_iter().collect());
        match ensured {
            Ok(repairs) if repairs.is_empty() => {}
            Ok(repairs) => info!("rules put in place: {repairs}"),
            Err(error) => {
                let text = Chain(&error).to_string();
                if self.throttle.should_log(&text) {
                    warn!("cannot keep the rules: {text}; trying again every {:?}", self.resync);
                }
            }
        }
    }

    async fn keep_blackholes(&mut self) {
        for subnet in self.blackholes.iter() {
            if let Err(error) = self.netlink.ensure_blackhole(subnet).await {
                let text = Chain(&error).to_string();
                if self.throttle.should_log(&text) {
                    warn!("{text}; trying again");
                }
            }
        }
    }
}
