//! What a registry has to bear when it comes back, or when one of its members goes: every host notices at the same moment.
//! If all of them then list the leases, a large network keeps a small registry away.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::host::{Host, Plan};
use crate::kernel::{Machine, underlay};
use crate::registry::Cluster;

/// How many hosts there are.
const HOSTS: usize = 60;
/// A host lists the leases no more often than that. By itself it does about once a minute.
const PERIOD: Duration = Duration::from_secs(45);
/// The time in which a registry that is back has to come to itself.
const FIRST: Duration = Duration::from_secs(10);

/// Has the registry go away for a moment, and for longer than a minute; has all watches break again and again.
///
/// # Errors
/// Hosts list more often than they need to, or together.
pub async fn check() -> Result<()> {
    let cluster = Cluster::default();
    cluster.put_config(r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#);
    let plan = Plan { network: "10.0.0.0/8".parse()?, subnet_len: 24 };
    let mut hosts = Vec::new();
    for number in 0..HOSTS {
        let machine = Machine::new(underlay(number, 0), number as u64 + 1);
        let mut host = Host::new(number, machine, &cluster, plan.clone(), number as u64 + 1);
        host.start();
        hosts.push(host);
    }
    sleep(Duration::from_secs(300)).await;
    let begin = Instant::now();
    for away in [3, 20, 200] {
        set_away(&cluster, true);
        sleep(Duration::from_secs(away)).await;
        set_away(&cluster, false);
        let back = Instant::now();
        sleep(FIRST).await;
        let count = heard(&cluster, back).len();
        ensure!(
            count <= HOSTS / 2,
            "{count} of {HOSTS} hosts list all leases within {FIRST:?} of a registry that was away for {away} s"
        );
        sleep(Duration::from_secs(180)).await;
    }
    for _ in 0..30 {
        cluster.break_watches();
        sleep(Duration::from_secs(4)).await;
    }
    check_periods(&cluster, begin)
}

fn set_away(cluster: &Cluster, is_away: bool) {
    (0..HOSTS).for_each(|host| cluster.set_away(host, is_away));
    cluster.break_watches();
}

/// The listings since then.
fn heard(cluster: &Cluster, since: Instant) -> Vec<(usize, Instant)> {
    cluster.listed().into_iter().filter(|(_, at)| *at >= since).collect()
}

/// Fails if a host listed twice within [`PERIOD`] while nothing but connections broke.
fn check_periods(cluster: &Cluster, since: Instant) -> Result<()> {
    let mut last: BTreeMap<usize, Instant> = BTreeMap::new();
    for (host, at) in heard(cluster, since) {
        if let Some(before) = last.insert(host, at) {
            ensure!(at - before >= PERIOD, "host {host} lists all leases again after {:?}", at - before);
        }
    }
    ensure!(last.len() == HOSTS, "only {} of {HOSTS} hosts have listed at all", last.len());
    Ok(())
}
