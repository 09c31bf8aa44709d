//! What flanneld keeps on the host by its settings: rules and the blackhole route.

use flannel_control::backend::{self, Tunnel};
use flannel_control::socket::RuleSettings;
use flannel_net::rules::{Choice, Fault, Rules};
use ipnetwork::Ipv4Network;

use super::super::daemon::Daemon;
use super::super::objects::Thing;
use super::super::wanted::Known;
use super::{Difference, Findings};

/// What cannot be compared without the daemon.
const RULES: &str =
    "rules and the blackhole route: no flanneld answers, which alone knows what it was told to keep";

impl Findings {
    pub(super) async fn compare_settings(
        &mut self,
        known: &Known,
        subnet: Ipv4Network,
    ) -> anyhow::Result<()> {
        let Some(settings) = known.daemon.as_ref().and_then(Daemon::settings) else {
            self.not_compared.push(RULES);
            return Ok(());
        };
        let RuleSettings { masquerade, fully_random, forward, guard, blackhole } = settings.rules;
        let tunnel_port = backend::of(&known.backend).tunnel().filter(|_| guard).map(Tunnel::port);
        let choice = Choice { masquerade, fully_random, forward, tunnel_port };
        let rules = Rules::of_host(choice, &settings.etcd_prefix, &known.config, &subnet.into());
        self.checked += 1;
        let mut repairs = Vec::new();
        for rules in rules.values() {
            repairs.extend(rules.differences().await?.iter().cloned());
        }
        for repair in repairs {
            let fault = match repair.fault {
                Fault::Missing => "missing",
                Fault::Changed => "changed",
                Fault::Unexpected => "unexpected",
            };
            self.differences.push(Difference::new(fault, Thing { kind: "rules", text: repair.thing }));
        }
        if blackhole {
            self.checked += 1;
            if !self.netlink.has_blackhole(subnet.into()).await? {
                self.missing("route", format!("blackhole {subnet}"));
            }
        }
        Ok(())
    }
}
