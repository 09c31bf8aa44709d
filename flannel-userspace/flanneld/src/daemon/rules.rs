//! The rules and the blackhole route: put in place before the subnet file announces the network, and kept from then on.

use std::convert::Infallible;
use std::time::Duration;

use flannel_common::maps::Guard;
use flannel_control::backend::Tunnel;
use flannel_control::configuration::Served;
use flannel_model::error::Chain;
use flannel_model::family::{PerFamily, Subnets};
use flannel_net::Netlink;
use flannel_net::rules::{Choice, Rules, RulesError};
use tokio::time::sleep;
use tracing::{info, warn};

use super::DaemonError;
use crate::cli::{Options, RuleOptions};
use flannel_control::throttle::LogThrottle;

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
        };
        match keeper.ensure().await {
            Err(error) if masquerade => return Err(error.into()),
            ensured => keeper.report(ensured),
        }
        keeper.keep_blackholes().await;
        keeper.tell_obstacles().await;
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
        let config = &self.configuration.borrow_and_update().network;
        self.rules = Rules::of_host(self.choice, &self.etcd_prefix, config, &self.subnets);
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

    /// The user's own chains are not changed, but they may drop packets.
    async fn tell_obstacles(&self) {
        for rules in self.rules.values() {
            match rules.obstacles().await {
                Ok(chains) if chains.is_empty() => {}
                Ok(chains) => warn!(
                    "{} drop by default what this host forwards: accept packets from and to the network there",
                    chains.join(", ")
                ),
                Err(error) => {
                    warn!("cannot find out whether other rules drop pods' packets: {}", Chain(&error));
                }
            }
        }
    }
}
