//! Something happens while numbered packets flow both ways between two hosts' pods: how many are lost, and when all is
//! well again.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::wait;

/// Datagrams per second, in each direction.
pub const RATE: u32 = 5000;
/// For so long a peer stays one without a lease.
pub const GRACE: Duration = Duration::from_secs(1);
/// Why packets to and from a host that is no peer are dropped, or that is just becoming one: its address is known a
/// moment before its subnet.
pub const STRANGER: &[&str] = &["no_peer", "unknown_outer_source", "inner_source_mismatch"];
/// How long packets flow before anything happens, and after all is well.
const CALM: Duration = Duration::from_millis(150);
/// Packets may need a moment more than whatever was mended, on a machine that does much else.
const MOMENT: Duration = Duration::from_millis(250);

/// A scenario, and what it may cost. Built with [`Scenario::new`] it may cost nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scenario<'a> {
    name: &'a str,
    outage: Duration,
    is_cut_until_mended: bool,
    drops: &'a [&'a str],
}

impl<'a> Scenario<'a> {
    /// A scenario in which nothing is lost.
    pub const fn new(name: &'a str) -> Self {
        Self { name, outage: Duration::ZERO, is_cut_until_mended: false, drops: &[] }
    }

    /// In all, so much time may go without packets.
    pub const fn with_outage(self, outage: Duration) -> Self {
        Self { outage, ..self }
    }

    /// No packets need pass until all is well again, besides.
    pub const fn until_mended(self) -> Self {
        Self { is_cut_until_mended: true, ..self }
    }

    /// The programs may drop packets for these reasons.
    pub const fn with_drops(self, drops: &'a [&'a str]) -> Self {
        Self { drops, ..self }
    }

    /// Plays it between the first pods of the first two members. `happen` returns how long it took until all was well.
    pub fn play(self, cluster: &mut Cluster, happen: impl FnOnce(&mut Cluster) -> Duration) {
        check_reached(&pod_pairs(&cluster.nodes())).unwrap();
        let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
        let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
        let drops = drops(cluster);
        sleep(CALM);
        let recovery = happen(cluster);
        sleep(CALM);
        let losses = streams.map(|stream| stream.stop().unwrap());
        self.judge(&losses, recovery);
        self.judge_drops(&drops, &self::drops(cluster));
        check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    }

    fn judge(&self, losses: &[Losses; 2], recovery: Duration) {
        let name = self.name;
        let (sent, lost) =
            losses.iter().fold((0, 0), |(sent, lost), losses| (sent + losses.sent, lost + losses.lost));
        println!("{name}: lost {lost} of {sent}, recovered in {} ms", recovery.as_millis());
        let ways = losses.len() as u32;
        let mending =
            if self.is_cut_until_mended { recovery + wait::stretched(MOMENT) } else { Duration::ZERO };
        let allowed = ((wait::stretched(self.outage) + mending) * RATE * ways).as_secs();
        assert!(
            Losses::unexcused_of(losses) <= allowed,
            "{name}: {lost} packets lost, {allowed} may be: {losses:?}"
        );
        assert!(losses.iter().all(|losses| losses.duplicates == 0), "{name}: {losses:?}");
    }

    fn judge_drops(&self, before: &Drops, after: &Drops) {
        let unexpected: Vec<_> = after
            .iter()
            .filter(|((_, _, reason), _)| !self.drops.contains(&reason.as_str()))
            .filter(|(place, packets)| before.get(*place).unwrap_or(&0) < packets)
            .collect();
        assert!(
            unexpected.is_empty(),
            "{}: the programs dropped {unexpected:?}, before {before:?}",
            self.name
        );
    }
}

/// Packets dropped by the programs, by member, hook and reason.
type Drops = BTreeMap<(usize, String, String), u64>;

fn drops(cluster: &Cluster) -> Drops {
    let of = |(number, daemon): (usize, &Daemon)| {
        let answer = daemon.ctl_json("counters").unwrap();
        let counters = answer["counters"].as_array().unwrap().clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        counters.into_iter().filter(|counter| counter["verdict"] == "drop").map(move |counter| {
            let place = (number, text(&counter["hook"]), text(&counter["reason"]));
            (place, counter["packets"].as_u64().unwrap())
        })
    };
    cluster.members.iter().map(|member| &member.daemon).enumerate().flat_map(of).collect()
}

/// Waits until `is_so`, and returns how long that took since `since`.
pub fn time_until(what: &str, since: Instant, limit: Duration, is_so: impl FnMut() -> bool) -> Duration {
    wait::until_true(what, limit.saturating_sub(since.elapsed()), is_so).unwrap();
    since.elapsed()
}
