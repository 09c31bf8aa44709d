//! Programs and filters of others at the same places continue to work, and ours with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aya::programs::{Xdp, XdpMode};
use flannel_common::maps::Node;
use flannel_datapath::{OBJECT, ProgramSettings, loader};
use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::namespace::Namespace;
use flannel_tests::traffic::{Ping, Stream};
use rstest::rstest;
use serde_json::Value;

use crate::{UDP, VXLAN, cluster, plan};

/// Priorities of the filters of somebody else: one before ours, two behind.
const FIRST: u16 = 7;
const ICMP: u16 = 0xfff0;
const DATAGRAMS: u16 = 0xfff1;

/// Filters at the ingress of `eth0` that count: everything, and behind ours ICMP and UDP.
fn add_filters(machine: &Namespace) {
    machine.ip("link add sink type bridge").unwrap();
    machine.ip("link set sink up").unwrap();
    let add = |priority: u16, pattern: &str, then: &str| {
        let filter = format!("filter add dev eth0 ingress pref {priority} protocol ip u32 match {pattern}");
        machine.run("tc", &format!("{filter} action mirred egress mirror dev sink {then}")).unwrap();
    };
    add(FIRST, "u32 0 0", "continue");
    add(ICMP, "ip protocol 1 0xff", "pass");
    add(DATAGRAMS, "ip protocol 17 0xff", "pass");
}

/// Packets each filter has counted, by priority.
fn counted(machine: &Namespace) -> BTreeMap<u64, u64> {
    let text = machine.run("tc", "-statistics -json filter show dev eth0 ingress").unwrap();
    let filters: Value = serde_json::from_str(&text).unwrap();
    let count = |filter: &Value| {
        let packets = filter["options"]["actions"][0]["stats"]["packets"].as_u64()?;
        Some((filter["pref"].as_u64()?, packets))
    };
    filters.as_array().unwrap().iter().filter_map(count).collect()
}

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_clsact(UDP, "clsact")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
fn filters_of_others_see_what_is_not_the_tunnels(#[case] backend: &str, #[case] hook: &str) {
    let mut cluster = cluster(backend, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    let [host, other] = [0, 1].map(|member| cluster.members[member].node.host.endpoint());
    if hook != "clsact" {
        host.namespace.run("tc", "qdisc add dev eth0 clsact").unwrap();
    }
    add_filters(&host.namespace);

    let pings = Ping { count: 20, interval: Duration::from_millis(10), ..Ping::default() };
    pings.send(&other, &host).unwrap().check().unwrap();
    let after_own = counted(&host.namespace);
    assert!(after_own[&ICMP.into()] >= 20, "what is not the tunnel's goes on to those behind: {after_own:?}");
    pings.send(cluster.pod(1).unwrap(), cluster.pod(0).unwrap()).unwrap().check().unwrap();
    let after_tunnel = counted(&host.namespace);
    assert_eq!(after_tunnel[&ICMP.into()], after_own[&ICMP.into()]);
    assert_eq!(after_tunnel[&DATAGRAMS.into()], 0, "the tunnel's packets end with ours");
    if hook == "clsact" {
        assert!(after_tunnel[&FIRST.into()] >= after_own[&FIRST.into()] + 20, "who is first sees them all");
    }

    // A restart leaves them as they are, and ours is there once.
    cluster.members[0].daemon.terminate().unwrap();
    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    check_reached(&pairs).unwrap();
    assert_eq!(counted(&host.namespace).len(), 3);
    let filters = host.namespace.run("tc", "filter show dev eth0 ingress").unwrap();
    let ours = filters.lines().filter(|line| line.contains("bpf chain 0 handle")).count();
    assert_eq!(ours, usize::from(hook == "clsact"), "{filters}");
}

/// The flag, and what the daemon says of it.
#[rstest]
#[case::udp(UDP, "xdp", "another XDP program is attached: decapsulating at TC instead")]
#[case::vxlan(VXLAN, "xdp", "another XDP program is attached: decapsulating at TC instead")]
#[case::vxlan_generic(VXLAN, "xdp-generic", "another XDP program is attached: decapsulating at TC instead")]
#[case::udp_auto(UDP, "auto", r#"by=tc because="another XDP program is attached""#)]
fn xdp_program_of_somebody_else_stays_and_tc_does_the_work(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] said: &str,
) {
    let mut cluster = cluster(backend, "tcx");
    let pairs = pod_pairs(&cluster.nodes());
    let host = cluster.members[0].node.host.namespace.clone();
    // The program of the other backend, without settings: it passes every packet on.
    let name = if backend == UDP { "vxlan_xdp" } else { "udp_xdp" };
    let mut ebpf = loader(&Node::UNSET, &ProgramSettings::default()).load(OBJECT).unwrap();
    let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    host.within(|| Ok(program.attach("eth0", XdpMode::Driver)?)).unwrap();

    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    daemon.settings().flags = vec![format!("--datapath-hook={hook}")];
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    assert!(log.contains(said), "{log}");
    let seen = program.info().unwrap().run_count();
    check_reached(&pairs).unwrap();
    assert!(daemon.count("decap", "forwarded").unwrap() > 0);
    assert!(program.info().unwrap().run_count() > seen, "it sees packets no more");
    let link = host.ip("-details link show eth0").unwrap();
    assert!(link.contains(&format!("name {name}")) || link.contains("prog/xdp"), "{link}");
    let features = daemon.ctl_json("features").unwrap();
    assert_eq!(features["interface"]["xdp_taken"], true);
    assert_eq!(features["choice"]["mechanism"], "tc");
}

/// How the underlay's XDP program of ours is attached, if there is one; and how those at TC are.
fn mechanisms_of(daemon: &Daemon) -> (Option<String>, BTreeSet<String>) {
    let status = daemon.ctl_json("status").unwrap();
    assert_eq!(status["attached"], true);
    let programs = status["programs"].as_array().unwrap().iter();
    let (at_xdp, at_tc): (Vec<&Value>, Vec<&Value>) =
        programs.partition(|program| program["program"].as_str().unwrap().contains("_xdp"));
    assert!(at_xdp.len() < 2, "{at_xdp:?}");
    let mechanism = |program: &&Value| program["mechanism"].as_str().unwrap().to_owned();
    (at_xdp.first().map(mechanism), at_tc.iter().map(mechanism).collect())
}

#[rstest]
#[case::udp(UDP, "auto", "auto")]
#[case::udp_clsact(UDP, "clsact", "auto")]
#[case::vxlan(VXLAN, "auto", "auto")]
#[case::vxlan_clsact(VXLAN, "clsact", "auto")]
#[case::vxlan_clsact_no_bypass(VXLAN, "clsact", "off")]
fn another_choice_of_the_hook_leaves_one_program_and_loses_nothing(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] bypass: &str,
) {
    let flag = |hook| format!("--datapath-hook={hook}");
    let bypass = format!("--pod-bypass={bypass}");
    let plan = plan(backend).with_flag(&flag(hook)).with_flag(&bypass);
    let mut cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    let (one, other) = (cluster.pod(0).unwrap().clone(), cluster.pod(1).unwrap().clone());
    let mut choices = vec![
        (hook, None),
        ("xdp-generic", Some("xdp-generic")),
        ("xdp", Some("xdp")),
        ("xdp-generic", Some("xdp-generic")),
        ("tcx", None),
    ];
    // Where the qdiscs are not there yet, the kernel loses packets over them.
    if hook == "clsact" {
        choices.extend([("clsact", None), ("tcx", None)]);
    }
    for (hook, attached) in choices {
        let stream = Stream::start(&other, &one, 2000).unwrap();
        let daemon = &mut cluster.members[0].daemon;
        daemon.terminate().unwrap();
        daemon.settings().flags = vec![flag(hook), bypass.clone()];
        daemon.restart().unwrap();
        daemon.wait_ready().unwrap();
        let (at_xdp, at_tc) = mechanisms_of(daemon);
        assert_eq!(at_xdp.as_deref(), attached, "{hook}");
        assert_eq!(at_tc, [if hook == "clsact" { "clsact" } else { "tcx" }.to_owned()].into(), "{hook}");
        let losses = stream.stop().unwrap();
        println!("{hook}: {losses:?}");
        assert!(losses.sent > 100 && losses.unexcused() == 0, "{hook}: {losses:?}");
    }
}
