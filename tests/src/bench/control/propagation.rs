//! From a lease in etcd to an entry in the programs' table of peers.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use etcd_client::Client;
use flannel_datapath::Tables;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::network::{Leases, subnet};
use super::usage::Usage;
use crate::daemon::Daemon;

/// Puts that are measured.
const PUTS: u32 = 200;
/// For how long many leases change.
const TIME: Duration = Duration::from_secs(20);
/// So many a second.
const RATE: u32 = 325;
/// A deleted lease comes back after so many more were deleted: some four seconds, when its peer is gone.
const ABSENT: u32 = 400;
/// Pause between two reads of the table.
const LOOK: Duration = Duration::from_micros(200);
/// How long an entry may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it took, in half of the cases and in 99 of 100 at most.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

/// What was measured while many leases changed.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// From a put to its entry.
    pub put: Percentiles,
    /// Changes a second that etcd took.
    pub rate: f64,
    /// Share of one CPU the daemon used.
    pub cpu: f64,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Result<Self> {
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        let found = at(50).zip(at(99)).map(|(p50, p99)| Self { p50: *p50, p99: *p99 });
        found.context("nothing was measured")
    }
}

/// How many peers there are after both measurements.
pub(super) const fn peers_after(peers: u32) -> u32 {
    peers + 2 * PUTS
}

/// Puts one new lease after the other.
pub(super) fn quiet(leases: &Leases, daemon: &Daemon, peers: u32) -> Result<Percentiles> {
    let tables = Tables::open(daemon.pin_dir())?;
    probe(leases, &tables, peers, Duration::ZERO)
}

/// Puts new leases while others change: a third of the changes moves a host to another address, a third deletes
/// a lease and a third brings one back.
pub(super) fn under_churn(leases: &Leases, daemon: &Daemon, peers: u32) -> Result<Churn> {
    let tables = Tables::open(daemon.pin_dir())?;
    let (pid, since) = (daemon.pid()?, Instant::now());
    let before = Usage::of(pid)?;
    let (changed, put) = thread::scope(|scope| {
        let changing = scope.spawn(|| leases.connected(|client| change(leases, client, peers)));
        let put = probe(leases, &tables, peers + PUTS, TIME / PUTS);
        (changing.join(), put)
    });
    let rate = changed.map_err(|_| anyhow!("the changes panicked"))??;
    let cpu = Usage::of(pid)?.cpu_since(&before).as_secs_f64() / since.elapsed().as_secs_f64();
    Ok(Churn { put: put?, rate, cpu })
}

fn probe(leases: &Leases, tables: &Tables, first: u32, pause: Duration) -> Result<Percentiles> {
    let times = leases.connected(async |mut client: Client| {
        let mut times = Vec::new();
        for number in first..first + PUTS {
            let (key, value) = leases.lease(number, 0)?;
            let start = Instant::now();
            client.put(key, value, None).await?;
            while tables.peer(subnet(number))?.is_none() {
                ensure!(start.elapsed() < PATIENCE, "no entry of {} after {PATIENCE:?}", subnet(number));
                thread::sleep(LOOK);
            }
            times.push(start.elapsed());
            sleep(pause.saturating_sub(start.elapsed())).await;
        }
        Ok(times)
    })?;
    Percentiles::of(times)
}

/// Changes leases at the rate; returns the rate that came of it.
async fn change(leases: &Leases, client: Client, peers: u32) -> Result<f64> {
    let (start, count) = (Instant::now(), RATE * u32::try_from(TIME.as_secs())?);
    let mut due = interval(TIME / count);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changes = JoinSet::new();
    let groups = count / 3;
    for group in 0..groups {
        let (moves, leaves) = (group % (peers / 2), peers / 2 + group % (peers / 2));
        let comes_back = group.checked_sub(ABSENT).map(|group| peers / 2 + group % (peers / 2));
        for (number, what) in
            [(Some(moves), What::Move), (Some(leaves), What::Leave), (comes_back, What::Return)]
        {
            due.tick().await;
            if let Some(number) = number {
                changes.spawn(apply(leases.clone(), client.clone(), number, what));
            }
        }
        while let Some(done) = changes.try_join_next() {
            done??;
        }
    }
    while let Some(done) = changes.join_next().await {
        done??;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    for group in groups.saturating_sub(ABSENT)..groups {
        apply(leases.clone(), client.clone(), peers / 2 + group % (peers / 2), What::Return).await?;
    }
    sleep(Duration::from_secs(1)).await;
    Ok(rate)
}

#[derive(Clone, Copy)]
enum What {
    Move,
    Leave,
    Return,
}

async fn apply(leases: Leases, mut client: Client, number: u32, what: What) -> Result<()> {
    let (key, value) = leases.lease(number, u32::from(matches!(what, What::Move)))?;
    match what {
        What::Leave => client.delete(key, None).await.map(drop)?,
        What::Move | What::Return => client.put(key, value, None).await.map(drop)?,
    }
    Ok(())
}
