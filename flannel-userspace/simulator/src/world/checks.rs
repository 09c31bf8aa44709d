//! What must hold while events happen, and when they have stopped.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use flannel_control::backend::{self, attributes};
use flannel_control::peers::PeerTable;
use flannel_model::lease::SubnetKey;
use flannel_model::object::Object;
use flannel_model::underlay::Hop;

use super::World;
use crate::host::Host;
use crate::kernel::are_same_way;

/// The most listings and watches of one host within ten seconds.
const MOST_ASKED: usize = 25;

impl World {
    /// What must be so at any time.
    pub(super) fn check_always(&self) -> Result<()> {
        let busiest = self.cluster.busiest();
        ensure!(
            busiest <= MOST_ASKED,
            "a host asked the registry for {busiest} listings and watches within ten seconds"
        );
        for host in &self.hosts {
            if let Some(needless) = host.status().needless {
                bail!("{needless} though nobody else has it");
            }
        }
        Ok(())
    }

    /// What must be so after a quiet time.
    pub(super) fn check(&self) -> Result<()> {
        self.check_always()?;
        let mut holders = BTreeMap::new();
        for host in &self.hosts {
            let subnet = self.check_host(host)?;
            if let Some(other) = holders.insert(subnet, host.number) {
                bail!("hosts {other} and {} both have {subnet}", host.number);
            }
        }
        Ok(())
    }

    fn check_host(&self, host: &Host) -> Result<SubnetKey> {
        let number = host.number;
        let status = host.status();
        let (Some(key), Some(conditions)) = (status.key, status.conditions) else {
            bail!("host {number} serves no subnet");
        };
        let pending = conditions.pending();
        ensure!(pending.is_empty(), "host {number} is not ready: {pending:?}, {:?}", conditions.failures());
        let (serves, wish) = (status.served.map(|served| served.borrow().text.clone()), self.wish.text());
        ensure!(serves.as_ref() == Some(&wish), "host {number} serves {serves:?} instead of {wish}");
        let outdated = conditions.outdated();
        ensure!(outdated.is_none(), "host {number} serves what it should, and says {outdated:?}");
        let Some(links) = host.machine.links() else { bail!("host {number} has no underlay") };
        let backend = backend::of(&self.wish.backend());
        let lease = self.cluster.lease(key);
        let wanted = attributes(&*backend, &links);
        ensure!(
            lease.as_ref().is_some_and(|lease| lease.attributes == wanted),
            "the lease of host {number} should say {wanted:?}; there is {lease:?}"
        );
        let vteps = backend::vteps(&*backend, &links);
        let site = self.plan.site(backend.kind(), vteps, &links.underlay, key.0);
        let mut table = PeerTable::new(site);
        table.apply_snapshot(&self.cluster.snapshot());
        let mut wanted: BTreeSet<Object> =
            backend.standing(self.plan.network.into(), &links).into_iter().collect();
        for peer in table.peers() {
            wanted.extend(backend.objects(peer, Hop::Link, &links)?);
        }
        let is = host.machine.objects();
        let (missing, stale) = (wanted.difference(&is).next(), is.difference(&wanted).next());
        ensure!(
            missing.is_none() && stale.is_none(),
            "host {number} lacks {missing:?} and has {stale:?} instead"
        );
        let built_for = host.machine.built_for();
        ensure!(
            built_for.as_ref().is_some_and(|built| are_same_way(built, links.clone())),
            "the programs of host {number} forward over {built_for:?} instead of {links:?}"
        );
        let address = host.machine.address();
        ensure!(
            links.devices.is_empty() || address == key.0.iter().map(|subnet| subnet.network()).next(),
            "the device of host {number} has the address {address:?} instead of {key}"
        );
        Ok(key)
    }
}
