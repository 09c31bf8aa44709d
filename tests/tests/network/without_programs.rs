//! A host to which the kernel refuses bpf() forwards by what needs no programs, and says so; where nothing does, the
//! daemon says why in one sentence, and changes nothing.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use flannel_datapath::pinned_programs;
use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases;
use flannel_tests::traffic::{Losses, Stream, transfer};
use nix::errno::Errno;
use rstest::rstest;

use crate::{HOST_GW, UDP, VXLAN};

const END: Duration = Duration::from_secs(10);
/// Between the steps under a stream.
const PAUSE: Duration = Duration::from_millis(200);
/// Datagrams per second.
const RATE: u32 = 5000;

/// A cluster whose first host has never had a program.
fn cluster(backend: &str, errno: Errno) -> Cluster {
    let plan = Plan::new(backend).with_flag("--metrics-listen=127.0.0.1:9501").with_flag("--ip-masq");
    let mut cluster = Cluster::start(&plan).unwrap();
    let member = &mut cluster.members[0];
    member.daemon.terminate().unwrap();
    member.daemon.ctl(&format!("down --etcd-prefix={PREFIX} {}", files(member))).unwrap();
    member.daemon.refused_bpf(errno).unwrap();
    cluster
}

fn files(member: &Member) -> String {
    let daemon = &member.daemon;
    format!("--subnet-file={} --state-file={}", daemon.subnet_file().display(), daemon.state_file().display())
}

fn log(member: &Member) -> String {
    fs::read_to_string(member.daemon.log()).unwrap()
}

#[rstest]
#[case::vxlan(
    VXLAN,
    Errno::EPERM,
    "forwarding by the kernel's vxlan device, without guard, counters and bypass"
)]
#[case::vxlan_unknown(VXLAN, Errno::ENOSYS, "forwarding by the kernel's vxlan device")]
#[case::host_gw(HOST_GW, Errno::EPERM, "forwarding by the kernel's routes, without bypass")]
fn what_works_without_is_used_and_said(#[case] backend: &str, #[case] errno: Errno, #[case] instead: &str) {
    let mut cluster = cluster(backend, errno);
    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    for (from, to) in [(from, to), (to, from)] {
        transfer(from, to, 1_000_000).unwrap();
    }

    let member = &cluster.members[0];
    assert!(log(member).contains("eBPF cannot be used: Linux "), "{}", log(member));
    assert!(log(member).contains(instead), "{}", log(member));
    let status = member.daemon.ctl_json("status").unwrap();
    assert_eq!(status["daemon"]["ready"], true, "{status}");
    let limits = status["daemon"]["limits"].to_string();
    assert!(limits.contains("bpf()") && limits.contains(instead), "{status}");
    let table = member.daemon.ctl("status").unwrap();
    assert!(table.contains("without programs: "), "{table}");
}

#[test]
fn udp_says_why_it_does_not_start() {
    let mut cluster = cluster(UDP, Errno::EPERM);
    let links = |member: &Member| member.node.host.namespace.ip("-o link").unwrap();
    let before = links(&cluster.members[0]);
    let lease = |cluster: &Cluster| {
        let leases = leases::list(&cluster.etcd, PREFIX).unwrap();
        leases.into_iter().map(|lease| lease.subnet).collect::<Vec<_>>()
    };
    let leases = lease(&cluster);
    cluster.members[0].daemon.restart().unwrap();
    let status = cluster.members[0].daemon.wait_end(END).unwrap();
    let member = &cluster.members[0];
    assert_eq!(status.code(), Some(1));
    let log = log(member);
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("the backend udp forwards by eBPF programs alone, which cannot be used: Linux"),
        "{log}"
    );
    assert_eq!(links(member), before);
    assert_eq!(lease(&cluster), leases);
    assert!(!member.daemon.pin_dir().exists() && !member.daemon.subnet_file().exists());
}

/// How a daemon is kept from eBPF.
#[derive(Clone, Copy, Debug)]
enum Without {
    /// It may have programs, and was not granted the capability.
    Capability,
    /// bpf() is refused.
    Bpf,
}

impl Without {
    fn apply(self, daemon: &mut Daemon) {
        match self {
            Self::Capability => daemon.bound_to(&["net_admin", "net_raw"]),
            Self::Bpf => daemon.refused_bpf(Errno::EPERM).unwrap(),
        }
    }
}

#[rstest]
#[case::vxlan(VXLAN, "auto", Without::Capability)]
#[case::vxlan_bpf(VXLAN, "auto", Without::Bpf)]
#[case::vxlan_clsact(VXLAN, "clsact", Without::Capability)]
#[case::vxlan_xdp(VXLAN, "xdp", Without::Capability)]
#[case::host_gw(HOST_GW, "auto", Without::Capability)]
fn nothing_is_lost_from_programs_to_the_kernel_and_back(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] without: Without,
) {
    let mut cluster = crate::cluster(backend, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
    for is_granted in [false, true] {
        for member in &mut cluster.members {
            member.daemon.terminate().unwrap();
            if is_granted {
                member.daemon.unbound();
            } else {
                without.apply(&mut member.daemon);
            }
            sleep(PAUSE);
            member.daemon.restart().unwrap();
            assert_eq!(member.daemon.wait_ready().unwrap(), member.node.file, "the subnet stays");
            sleep(PAUSE);
            let has_programs = !pinned_programs(member.daemon.pin_dir()).unwrap().is_empty();
            assert_eq!(has_programs, is_granted, "{}", log(member));
            let limits = member.daemon.ctl_json("status").unwrap()["daemon"]["limits"].to_string();
            assert_eq!(limits.contains("without programs"), !is_granted, "{limits}");
        }
    }
    let losses = streams.map(|stream| stream.stop().unwrap());
    assert!(losses.iter().all(|losses| losses.sent > 2000), "{losses:?}");
    assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}");
    check_reached(&pairs).unwrap();
    for member in &cluster.members {
        let log = log(member);
        assert!(log.contains("took away the programs of an earlier flanneld"), "{log}");
        if matches!(without, Without::Capability) {
            assert!(log.contains("capabilities: {add: [NET_ADMIN, NET_RAW, BPF, PERFMON]}"), "{log}");
        }
    }
}

/// Without programs the udp backend does not forward, so those that are there stay.
#[test]
fn programs_of_an_earlier_daemon_stay_where_nothing_else_forwards() {
    let mut cluster = Cluster::start(&Plan::new(UDP)).unwrap();
    let member = &mut cluster.members[0];
    member.daemon.terminate().unwrap();
    member.daemon.bound_to(&["net_admin", "net_raw"]);
    member.daemon.restart().unwrap();
    assert_eq!(member.daemon.wait_end(END).unwrap().code(), Some(1));
    assert!(log(member).contains("the backend udp forwards by eBPF programs alone"), "{}", log(member));
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}
