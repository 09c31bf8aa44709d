//! What flanneld keeps on the host by its settings: rules and the blackhole route.

use flannel_control::backend;
use flannel_net::rules::Fault;
use flanneld::daemon;
use ipnetwork::Ipv4Network;

use super::super::daemon::Daemon;
use super::super::objects::Thing;
use super::super::place::Place;
use super::super::wanted::Known;
use super::{Difference, Findings};

/// What cannot be compared without the daemon.
const RULES: &str = "rules and the blackhole route: flanneld does not run, and its flags say which it keeps";

impl Findings {
    pub(super) async fn compare_settings(
        &mut self,
        known: &Known,
        place: &Place,
        subnet: Ipv4Network,
    ) -> anyhow::Result<()> {
        let Some(options) = Daemon::find(&place.pin_dir()).and_then(|daemon| daemon.options) else {
            self.not_compared.push(RULES);
            return Ok(());
        };
        let tunnel = backend::of(&known.backend).tunnel();
        let rules = daemon::rules(&options, &known.config, tunnel, &subnet.into());
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
        if options.rules.blackhole {
            self.checked += 1;
            if !self.netlink.has_blackhole(subnet.into()).await? {
                self.missing("route", format!("blackhole {subnet}"));
            }
        }
        Ok(())
    }
}
