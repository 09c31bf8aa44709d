//! The daemon keeps the two capabilities that forwarding takes, and does all its work with them. Where it was given the
//! one that programs are loaded with, it keeps that at rest, and loads with it again.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use flannel_tests::cluster::{Cluster, Member, check_reached, pod_pairs};
use flannel_tests::ledger;
use flannel_tests::network::SubnetFile;
use flannel_tests::wait::{until, until_true};
use rstest::rstest;

use crate::{HOST_GW, UDP, VXLAN, plan};

/// `CAP_NET_ADMIN` and `CAP_BPF`, as /proc writes them.
const TWO: u64 = 1 << 12 | 1 << 39;
/// `CAP_PERFMON`.
const FOR_LOADING: u64 = 1 << 38;
/// How long a repair may take.
const REPAIR: Duration = Duration::from_secs(5);

/// The five sets of each thread of a member's daemon, by the thread's id.
fn capabilities(member: &Member) -> Vec<(String, String, u64)> {
    let tasks = format!("/proc/{}/task", member.daemon.pid().unwrap());
    let mut sets = Vec::new();
    for task in fs::read_dir(tasks).unwrap() {
        let task = task.unwrap();
        let thread = task.file_name().into_string().unwrap();
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        for line in status.lines().filter(|line| line.starts_with("Cap")) {
            let (name, mask) = line.split_once(":\t").unwrap();
            sets.push((thread.clone(), name.to_owned(), u64::from_str_radix(mask, 16).unwrap()));
        }
    }
    sets
}

fn assert_confined(cluster: &Cluster, is_bounded: bool) {
    for member in &cluster.members {
        let main = member.daemon.pid().unwrap().to_string();
        let sets = capabilities(member);
        assert!(sets.len() >= 5, "{sets:?}");
        for (thread, name, mask) in sets {
            let may_load_fast = !is_bounded && thread == main && name == "CapPrm";
            let wanted = if may_load_fast { TWO | FOR_LOADING } else { TWO };
            assert_eq!(mask, wanted, "{name} of {thread} is {mask:x}");
        }
    }
}

/// A cluster whose daemons are root, or have never had more than the two capabilities.
fn cluster(backend: &str, flags: &[&str], is_bounded: bool) -> Cluster {
    let mut plan = plan(backend);
    plan.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut cluster = Cluster::start(&plan).unwrap();
    if is_bounded {
        for member in &mut cluster.members {
            member.daemon.terminate().unwrap();
            member.daemon.bound_to(&["bpf", "net_admin"]);
            member.daemon.restart().unwrap();
            member.daemon.wait_ready().unwrap();
        }
    }
    cluster
}

#[rstest]
#[case::udp(UDP, &[], true)]
#[case::vxlan(VXLAN, &["--ip-masq"], true)]
#[case::vxlan_xdp(VXLAN, &["--datapath-hook=xdp"], true)]
#[case::vxlan_clsact(VXLAN, &["--datapath-hook=clsact"], true)]
#[case::host_gw(HOST_GW, &["--ip-masq"], true)]
#[case::started_as_root(VXLAN, &["--ip-masq"], false)]
#[case::udp_started_as_root(UDP, &[], false)]
fn everything_goes_with_two_capabilities(
    #[case] backend: &str,
    #[case] flags: &[&str],
    #[case] is_bounded: bool,
) {
    let mut flags = flags.to_vec();
    flags.extend(["--iptables-resync=1", "--metrics-listen=127.0.0.1:9501"]);
    let mut cluster = cluster(backend, &flags, is_bounded);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    assert_confined(&cluster, is_bounded);

    let peer = cluster.members[1].node.file.subnet;
    let member = &mut cluster.members[0];
    // With host-gw there are programs of the bypass alone.
    assert!(backend == HOST_GW || !ledger::pinned(member.daemon.pin_dir()).unwrap().is_empty());
    assert_barriers(member, is_bounded);
    let namespace = &member.node.host.namespace.clone();
    let device = match backend {
        UDP => Some("flannel0"),
        VXLAN => Some("flannel.1"),
        _ => None,
    };
    if let Some(device) = device {
        namespace.ip(&format!("link del {device}")).unwrap();
        let is_back = || namespace.ip(&format!("link show {device}")).is_ok();
        until_true("the device to be back", REPAIR, is_back).unwrap();
        check_reached(&pairs).unwrap();
        assert_barriers(member, is_bounded);
        member.daemon.note_programs().unwrap();
        detach_all(member);
        until("every program to be back", REPAIR, || is_attached(member)).unwrap();
        member.daemon.note_programs().unwrap();
    }
    if backend != UDP {
        namespace.ip(&format!("route del {peer}")).unwrap();
        let is_back = || namespace.ip("route").is_ok_and(|routes| routes.contains(&peer.to_string()));
        until_true("the route to be back", REPAIR, is_back).unwrap();
    }
    let before = member.node.file.mtu;
    namespace.ip("link set eth0 mtu 1400").unwrap();
    let follows =
        || SubnetFile::read(&member.daemon.subnet_file()).is_ok_and(|file| file.mtu == before - 100);
    until_true("the MTU to be followed", REPAIR, follows).unwrap();
    if flags.contains(&"--ip-masq") {
        namespace.run("iptables", "-t nat -F FLANNEL-POSTRTG").unwrap();
        let rules = || namespace.run("iptables", "-t nat -S FLANNEL-POSTRTG");
        let are_back = || rules().is_ok_and(|rules| rules.contains("MASQUERADE"));
        until_true("the rules to be back", REPAIR, are_back).unwrap();
    }
    check_reached(&pairs).unwrap();
    assert_confined(&cluster, is_bounded);
}

/// Fails unless every program has barriers, or none.
fn assert_barriers(member: &Member, wanted: bool) {
    for (program, hook) in ledger::pinned(member.daemon.pin_dir()).unwrap() {
        assert_eq!(has_barriers(member, program), wanted, "at {hook}");
    }
}

/// Whether the kernel has put barriers against speculation into a program.
fn has_barriers(member: &Member, program: u32) -> bool {
    let dump = format!("prog dump xlated id {program}");
    member.node.host.namespace.run("bpftool", &dump).unwrap().contains("nospec")
}

fn detach_all(member: &Member) {
    for entry in fs::read_dir(member.daemon.pin_dir().join("links")).unwrap() {
        let command = format!("link detach pinned {}", entry.unwrap().path().display());
        member.node.host.namespace.run("bpftool", &command).unwrap();
    }
}

fn is_attached(member: &Member) -> Result<()> {
    let status = member.daemon.ctl_json("status")?;
    ensure!(status["attached"] == true, "{status}");
    match status["programs"].as_array() {
        Some(programs) if !programs.is_empty() => Ok(()),
        _ => bail!("no program in {status}"),
    }
}
