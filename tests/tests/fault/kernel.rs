//! Somebody undoes in the kernel what the daemon has put there: it is put back, and what is lost meanwhile is lost.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::bail;
use flannel_tests::cluster::{Cluster, Member};
use flannel_tests::namespace::Namespace;
use flannel_tests::network::BRIDGE;
use flannel_tests::wait;
use rstest::rstest;

use crate::scenario::{Scenario, time_until};
use crate::sight::{HOST_GW, UDP, VXLAN, kernel_of, plan};

/// What the kernel announces stands again within this time: sooner than the next sweep, after 10 s.
const REPAIR: Duration = Duration::from_secs(3);
/// What it does not announce is found by a look every second, and mended: sooner than the next sweep, too.
const LOOK: Duration = Duration::from_secs(4);
/// The kernel takes up to a second to notice that a bridge has a port.
const NOTICE: Duration = Duration::from_secs(1);
/// Until the datapath is whole again, packets meet a part of it.
const PARTIAL: &[&str] = &["bad_inner_mac", "not_guarded", "redirect_failed"];

/// A name, and what is done on a host to what belongs to a peer.
type Damage = (&'static str, fn(&Member, &Member));

const VXLAN_DAMAGE: &[Damage] = &[
    ("route of a peer deleted", |host, peer| ip(host, &format!("route del {}", peer.node.file.subnet))),
    ("neighbour of a peer deleted", |host, peer| {
        ip(host, &format!("neigh del {} dev flannel.1", peer.node.file.subnet.network()));
    }),
    ("forwarding entry of a peer deleted", |host, peer| {
        let entries = host.node.host.namespace.run("bridge", "fdb show dev flannel.1").unwrap();
        let address = peer.node.host.address.to_string();
        let entry = entries.lines().find(|line| line.split(' ').any(|word| word == address)).unwrap();
        let mac = entry.split(' ').next().unwrap();
        let delete = format!("fdb del {mac} dev flannel.1 dst {address}");
        host.node.host.namespace.run("bridge", &delete).unwrap();
    }),
    ("address of flannel.1 deleted", |host, _| ip(host, "address flush dev flannel.1")),
    ("flannel.1 set down", |host, _| ip(host, "link set flannel.1 down")),
    ("MAC of flannel.1 changed", |host, _| ip(host, "link set flannel.1 address 02:00:00:00:77:77")),
    ("flannel.1 deleted", |host, _| ip(host, "link del flannel.1")),
];

const UDP_DAMAGE: &[Damage] = &[
    ("address of flannel0 deleted", |host, _| ip(host, "address flush dev flannel0")),
    ("flannel0 set down", |host, _| ip(host, "link set flannel0 down")),
    ("flannel0 deleted", |host, _| ip(host, "link del flannel0")),
];

const HOST_GW_DAMAGE: &[Damage] = &[("route of a peer deleted (host-gw)", VXLAN_DAMAGE[0].1)];

const FILTER_DAMAGE: &[Damage] = &[
    ("filter on eth0 deleted (clsact)", |host, _| tc(host, "filter del dev eth0 ingress")),
    ("filter on flannel.1 deleted (clsact)", |host, _| tc(host, "filter del dev flannel.1 egress")),
    ("clsact qdisc of flannel.1 deleted", |host, _| tc(host, "qdisc del dev flannel.1 clsact")),
];

#[rstest]
#[case::vxlan(VXLAN, "auto", VXLAN_DAMAGE)]
#[case::udp(UDP, "auto", UDP_DAMAGE)]
#[case::host_gw(HOST_GW, "auto", HOST_GW_DAMAGE)]
#[case::filters(VXLAN, "clsact", FILTER_DAMAGE)]
fn damage(#[case] backend: &str, #[case] hook: &str, #[case] damages: &[Damage]) {
    let mut cluster = Cluster::start(&plan(backend).with_flag(&format!("--datapath-hook={hook}"))).unwrap();
    for (name, damage) in damages {
        Scenario::new(name).until_mended().with_drops(PARTIAL).play(&mut cluster, |cluster| {
            let [host, peer] = &cluster.members[..] else { panic!("two hosts") };
            let namespace = &host.node.host.namespace;
            let before = kernel_of(namespace);
            damage(host, peer);
            let since = Instant::now();
            repaired(namespace, &before, since)
        });
    }
}

/// The bridge is removed by its maker, who makes it again.
#[test]
fn bridge_deleted_and_made_again() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let scenario = Scenario::new("cni0 deleted and made again").with_outage(NOTICE).until_mended();
    scenario.play(&mut cluster, |cluster| {
        let node = &cluster.members[0].node;
        let namespace = &node.host.namespace;
        let before = kernel_of(namespace);
        namespace.ip(&format!("link del {BRIDGE}")).unwrap();
        let since = Instant::now();
        node.host.add_bridge(&node.file).unwrap();
        namespace.ip(&format!("link set {} master {BRIDGE}", node.pods[0].port)).unwrap();
        repaired(namespace, &before, since)
    });
}

/// Waits until the kernel is as before, and returns how long that took.
fn repaired(host: &Namespace, before: &str, since: Instant) -> Duration {
    wait::until("the kernel to be as before", REPAIR, || {
        let now = kernel_of(host);
        if now == before { Ok(()) } else { bail!("it was\n{before}\nand is\n{now}") }
    })
    .unwrap();
    since.elapsed()
}

fn ip(member: &Member, arguments: &str) {
    member.node.host.namespace.ip(arguments).unwrap();
}

fn tc(member: &Member, arguments: &str) {
    member.node.host.namespace.run("tc", arguments).unwrap();
}

/// The kernel does not announce it. Its own VXLAN forwards meanwhile.
#[rstest]
#[case::tcx("every program detached (TCX)", "tcx")]
#[case::xdp("every program detached (XDP)", "xdp")]
fn programs_detached(#[case] name: &str, #[case] hook: &str) {
    let mut cluster = Cluster::start(&plan(VXLAN).with_flag(&format!("--datapath-hook={hook}"))).unwrap();
    Scenario::new(name).with_drops(PARTIAL).play(&mut cluster, |cluster| {
        let host = &cluster.members[0];
        detach(host);
        let since = Instant::now();
        let counts = || ["encap", "decap"].map(|hook| host.daemon.count(hook, "forwarded").unwrap());
        let before = counts();
        time_until("every program to count again", since, LOOK, || {
            counts().iter().zip(before).all(|(now, before)| *now > before)
        })
    });
}

/// Takes the pinned programs off their interfaces; the pins stay, of links that lead nowhere.
fn detach(member: &Member) {
    for entry in fs::read_dir(member.daemon.pin_dir().join("links")).unwrap() {
        let path = entry.unwrap().path();
        let command = format!("link detach pinned {}", path.display());
        member.node.host.namespace.run("bpftool", &command).unwrap();
    }
}
