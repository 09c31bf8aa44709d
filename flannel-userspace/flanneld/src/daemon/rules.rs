//! The rules and the blackhole route, put in place before the subnet file tells that the network is there, and looked
//! after from then on.

use std::convert::Infallible;
use std::time::Duration;

use flannel_model::config::NetworkConfig;
use flannel_model::error::Chain;
use flannel_net::Netlink;
use flannel_net::rules::{Engine, Names, Rules, RulesError, Spec};
use ipnetwork::Ipv4Network;
use tokio::time::sleep;
use tracing::{info, warn};

use super::DaemonError;
use crate::cli::RuleOptions;
use flannel_control::throttle::LogThrottle;

/// The rules of this host's subnet, as a daemon that is told `options` keeps them.
pub fn rules(options: &RuleOptions, prefix: &str, config: &NetworkConfig, subnet: Ipv4Network) -> Rules {
    let RuleOptions { masquerade, fully_random, forward, .. } = *options;
    let spec = Spec { network: config.network, subnet, masquerade, fully_random, forward };
    let engine = if config.enable_nftables { Engine::Nftables } else { Engine::Iptables };
    Rules::new(&spec, engine, Names::of(prefix))
}

/// Looks after the rules of this host's subnet.
pub(super) struct RuleKeeper {
    rules: Rules,
    netlink: Netlink,
    blackhole: Option<Ipv4Network>,
    resync: Duration,
    trouble: LogThrottle,
}

impl RuleKeeper {
    /// Puts the rules in place. Rules that only let through what most hosts let through anyway are no reason not to
    /// start.
    pub(super) async fn start(
        options: &RuleOptions,
        prefix: &str,
        config: &NetworkConfig,
        subnet: Ipv4Network,
        netlink: Netlink,
    ) -> Result<Self, DaemonError> {
        let RuleOptions { masquerade, resync, blackhole, .. } = *options;
        let mut keeper = Self {
            rules: rules(options, prefix, config, subnet),
            netlink,
            blackhole: blackhole.then_some(subnet),
            resync,
            trouble: LogThrottle::default(),
        };
        match keeper.rules.ensure().await {
            Err(error) if masquerade => return Err(error.into()),
            ensured => keeper.report(ensured.map(|repairs| repairs.to_string())),
        }
        keeper.keep_blackhole().await;
        keeper.tell_obstacles().await;
        Ok(keeper)
    }

    /// Checks and repairs, for ever.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            sleep(self.resync).await;
            let ensured = self.rules.ensure().await;
            self.report(ensured.map(|repairs| repairs.to_string()));
            self.keep_blackhole().await;
        }
    }

    fn report(&mut self, ensured: Result<String, RulesError>) {
        match ensured {
            Ok(repairs) if repairs.is_empty() => {}
            Ok(repairs) => info!("rules put in place: {repairs}"),
            Err(error) => {
                let text = Chain(&error).to_string();
                if self.trouble.should_log(&text) {
                    warn!("cannot keep the rules: {text}; trying again every {:?}", self.resync);
                }
            }
        }
    }

    async fn keep_blackhole(&mut self) {
        let Some(subnet) = self.blackhole else { return };
        if let Err(error) = self.netlink.ensure_blackhole(subnet).await {
            let text = Chain(&error).to_string();
            if self.trouble.should_log(&text) {
                warn!("{text}; trying again");
            }
        }
    }

    /// Chains of the user's own are not written to, but they may stand in the way.
    async fn tell_obstacles(&self) {
        match self.rules.obstacles().await {
            Ok(chains) if chains.is_empty() => {}
            Ok(chains) => warn!(
                "{} drop by default what this host forwards: accept packets from and to the network there",
                chains.join(", ")
            ),
            Err(error) => warn!("cannot tell whether other rules drop pods' packets: {}", Chain(&error)),
        }
    }
}
