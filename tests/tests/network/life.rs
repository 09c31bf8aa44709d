//! Daemons die by SIGKILL at any moment of their lives, also before they are ready: no packet is lost, no connection
//! breaks, and nothing is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use flannel_tests::cluster::{Cluster, Member, check_reached, pod_pairs};
use flannel_tests::leases;
use flannel_tests::traffic::{Conversation, Losses, Stream};
use flannel_tests::wait::{until, until_true};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rstest::rstest;

use crate::{UDP, VXLAN, plan, traces};

/// Datagrams per second, in one direction.
const RATE: u32 = 10_000;
/// Deaths in one case: a hundred in all.
const DEATHS: u32 = 25;
/// The longest life. A start takes a fourth of that, or so.
const LIFE: Duration = Duration::from_millis(800);

#[rstest]
#[case::udp_tcx(UDP, "tcx")]
#[case::udp_clsact(UDP, "clsact")]
#[case::vxlan_tcx(VXLAN, "tcx")]
#[case::vxlan_clsact(VXLAN, "clsact")]
fn nothing_is_lost_or_left_by_daemons_that_are_killed(#[case] backend: &str, #[case] hook: &str) {
    let plan = plan(backend).with_flag(&format!("--datapath-hook={hook}")).with_flag("--ip-masq");
    let mut cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for Member { daemon, .. } in &cluster.members {
        // It is written last of all.
        until_true("a state file", Duration::from_secs(5), || daemon.state_file().exists()).unwrap();
    }
    let before = traces(&cluster);
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
    let connection = Conversation::start(one, other).unwrap();

    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    println!("the seed is {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..DEATHS {
        let daemon = &mut cluster.members[random.random_range(0..2)].daemon;
        // Half of them die as they start.
        let longest = if random.random_bool(0.5) { LIFE / 4 } else { LIFE };
        sleep(random.random_range(Duration::ZERO..longest));
        daemon.kill().unwrap();
        daemon.restart().unwrap();
    }
    for member in &mut cluster.members {
        assert_eq!(member.daemon.wait_ready().unwrap(), member.node.file, "the subnet stays");
    }

    sleep(Duration::from_millis(200));
    let losses = streams.map(|stream| stream.stop().unwrap());
    let heard = connection.stop().unwrap();
    println!("{losses:?}, {heard:?}");
    assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}");
    cluster.settle().unwrap();
    until("everything to be as before", Duration::from_secs(10), || {
        let now = traces(&cluster);
        if now == before { Ok(()) } else { bail!("{}", differences(&before, &now)) }
    })
    .unwrap();
    let starts = "chose the underlay";
    let told = |what: &str| -> usize {
        let log = |member: &Member| fs::read_to_string(member.daemon.log()).unwrap().matches(what).count();
        cluster.members.iter().map(log).sum()
    };
    println!("of {} lives {} came to be ready", told(starts), told("ready: every known peer is reached"));
}

/// What is there more often, or less often, than before.
fn differences(before: &str, now: &str) -> String {
    let mut times = BTreeMap::<&str, i32>::new();
    for line in now.lines() {
        *times.entry(line).or_default() += 1;
    }
    for line in before.lines() {
        *times.entry(line).or_default() -= 1;
    }
    let changed = times.into_iter().filter(|(_, times)| *times != 0);
    changed.map(|(line, times)| format!("{times:+} {line}\n")).collect()
}

/// What every daemon has left on its host, and in etcd.
fn traces(cluster: &Cluster) -> String {
    let leases = leases::list(&cluster.etcd, flannel_tests::etcd::PREFIX).unwrap();
    let hosts: Vec<String> = cluster.members.iter().map(traces::of).collect();
    format!("{}\n{leases:#?}", hosts.join("\n"))
}
