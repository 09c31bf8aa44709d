//! What can be written to etcd and is no good lease: nothing changes but a counter, and the next good lease is taken.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases::Lease;
use flannel_tests::network::Host;
use nix::sys::signal::Signal;
use rstest::rstest;

use crate::scenario::{GRACE, Scenario, time_until};
use crate::sight::{VXLAN, learn, metric, own_key, paper_lease, peers, plan};

/// The next good lease is in the maps within this time: sooner than by the next listing, after a minute.
const PROMPT: Duration = Duration::from_secs(2);
/// For so long a mass deletion is held.
const HOLD: Duration = Duration::from_secs(10);
/// One that is not held is carried out sooner.
const MOMENT: Duration = Duration::from_secs(2);

/// A key below the leases, and what is written there.
type Entry = (String, Vec<u8>);

/// What is wrong with an entry, and the reason under which its refusal is counted.
type Case = (&'static str, &'static str, Entry);

fn entry(key: &str, value: impl Into<Vec<u8>>) -> Entry {
    (key.to_owned(), value.into())
}

/// A lease with another backend or other data than those of the network.
fn vtep(backend: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"PublicIP":"192.168.77.99","BackendType":"{backend}","BackendData":{data}}}"#).into()
}

fn at(subnet: &str) -> Entry {
    entry(subnet, vtep("vxlan", r#"{"VNI":1,"VtepMAC":"02:00:00:00:01:63"}"#))
}

fn of(public_ip: &str) -> Entry {
    let (subnet, value) = at("10.5.199.0-24");
    (subnet, String::from_utf8(value).unwrap().replace("192.168.77.99", public_ip).into())
}

fn saying(backend: &str, data: &str) -> Entry {
    entry("10.5.199.0-24", vtep(backend, data))
}

fn nested() -> Vec<u8> {
    [vec![b'['; 100_000], vec![b']'; 100_000]].concat()
}

fn junk() -> Vec<Case> {
    vec![
        ("junk key", "unreadable", entry("garbage", "x")),
        ("junk JSON", "unreadable", entry("10.5.199.0-24", "{")),
        ("a value of 1 MB", "unreadable", entry("10.5.199.0-24", vec![b'x'; 1 << 20])),
        ("deep nesting", "unreadable", entry("10.5.199.0-24", nested())),
        (
            "a number for PublicIP",
            "unreadable",
            entry("10.5.199.0-24", r#"{"PublicIP":5,"BackendType":"vxlan"}"#),
        ),
        ("a list for a lease", "unreadable", entry("10.5.199.0-24", r#"["PublicIP","192.168.77.99"]"#)),
        ("no UTF-8", "unreadable", entry("10.5.199.0-24", b"{\"PublicIP\":\"\xff\xfe\"}".to_vec())),
    ]
}

fn subnets() -> Vec<Case> {
    vec![
        ("subnet outside the network", "outside_network", at("8.8.8.0-24")),
        ("longer subnet", "subnet_length", at("10.5.199.0-25")),
        ("shorter subnet", "subnet_length", at("10.5.198.0-23")),
        ("subnet with host bits", "host_bits", at("10.5.199.1-24")),
        ("subnet over the underlay and etcd", "outside_network", at("192.168.77.0-24")),
        ("subnet over etcd alone", "outside_network", at("192.168.77.1-32")),
        ("subnet over a peer's PublicIP", "outside_network", at("192.168.77.12-32")),
        ("subnet over everything", "outside_network", at("0.0.0.0-0")),
    ]
}

fn addresses() -> Vec<Case> {
    vec![
        ("PublicIP 0.0.0.0", "no_host_address", of("0.0.0.0")),
        ("PublicIP 127.0.0.1", "no_host_address", of("127.0.0.1")),
        ("multicast PublicIP", "no_host_address", of("224.0.0.1")),
        ("broadcast PublicIP", "no_host_address", of("255.255.255.255")),
        ("broadcast of the segment as PublicIP", "no_host_address", of("192.168.77.255")),
        ("own PublicIP", "own_address", of("192.168.77.11")),
    ]
}

fn backends() -> Vec<Case> {
    vec![
        ("BackendType host-gw", "backend_type", saying("host-gw", "{}")),
        ("unknown BackendType", "backend_type", saying("carrier-pigeon", "{}")),
        ("another VNI", "vni", saying("vxlan", r#"{"VNI":2,"VtepMAC":"02:00:00:00:01:63"}"#)),
        ("multicast VtepMAC", "vtep_mac", saying("vxlan", r#"{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}"#)),
        ("zero VtepMAC", "vtep_mac", saying("vxlan", r#"{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}"#)),
        ("no VtepMAC", "vtep_mac", saying("vxlan", r#"{"VNI":1}"#)),
    ]
}

/// A network around the underlay, in which a subnet could draw the hosts' own packets to itself.
fn around() -> Vec<Case> {
    vec![
        ("subnet over the underlay, in the network", "connected_network", at("192.168.77.0-24")),
        ("subnet over a far peer, in the network", "covers_peer", at("192.168.88.0-24")),
    ]
}

const INSIDE: &str = "10.5.0.0/16";
const AROUND: &str = "192.168.0.0/16";

/// Every case of a group is written while packets flow, after the one before has been removed.
#[rstest]
#[case::junk(INSIDE, junk())]
#[case::subnets(INSIDE, subnets())]
#[case::addresses(INSIDE, addresses())]
#[case::backends(INSIDE, backends())]
#[case::around(AROUND, around())]
fn lease(#[case] network: &str, #[case] cases: Vec<Case>) {
    let mut plan = watched();
    let good = if network == AROUND {
        plan = plan.with_far_host();
        plan.config = plan.config.replace(INSIDE, network).replace("10.5.99.0", "192.168.60.0");
        Lease { subnet: "192.168.200.0/24".parse().unwrap(), ..paper_lease(200) }
    } else {
        paper_lease(200)
    };
    let mut cluster = Cluster::start(&plan).unwrap();
    for (name, reason, entry) in cases {
        let entry = (format!("{PREFIX}/subnets/{}", entry.0), entry.1);
        play(&mut cluster, (name, reason), &entry, &good);
        cluster.etcd.delete(&entry.0).unwrap();
    }
}

#[test]
fn junk_over_a_good_lease() {
    let mut cluster = Cluster::start(&watched()).unwrap();
    let entry = (own_key(&cluster, 1), b"{".to_vec());
    play(&mut cluster, ("junk over a peer's lease", "unreadable"), &entry, &paper_lease(200));
}

fn play(cluster: &mut Cluster, (name, reason): (&str, &str), (key, value): &Entry, good: &Lease) {
    let before = state(cluster);
    let rejected = rejections(cluster, reason);
    Scenario::new(name).play(cluster, |cluster| {
        cluster.etcd.put_bytes(key, value).unwrap();
        let noticed = || rejections(cluster, reason) > rejected;
        time_until("the lease to be refused", Instant::now(), PROMPT, noticed);
        assert_eq!(state(cluster), before, "{name}");
        learn(cluster, good, PROMPT)
    });
    cluster.etcd.delete(&good.key(PREFIX)).unwrap();
    let gone = || state(cluster) == before;
    time_until("the good lease to be gone", Instant::now(), GRACE + PROMPT, gone);
}

/// Hosts that report what they refuse.
fn watched() -> Plan {
    plan(VXLAN).with_flag("--healthz-ip=127.0.0.1").with_flag("--healthz-port=8080")
}

/// Refusals of the first host, by which a case is judged that only that refuses.
fn rejections(cluster: &Cluster, reason: &str) -> u64 {
    let series = format!("flannel_lease_rejected_total{{reason=\"{reason}\"}}");
    metric(host(cluster, 0), 8080, &series)
}

fn host(cluster: &Cluster, member: usize) -> &Host {
    &cluster.members[member].node.host
}

/// The first host's peers and routes, which a case that only one host refuses must leave alone.
fn state(cluster: &Cluster) -> (Vec<(String, String)>, String) {
    let daemon = &cluster.members[0].daemon;
    let routes = host(cluster, 0).namespace.ip("route show table all").unwrap();
    (peers(daemon).into_iter().collect(), routes)
}

/// Leases written by hand, by their subnets' numbers.
const WRITTEN: Range<u8> = 200..212;
/// How many of them each of the hosts knows.
const ALL: [usize; 2] = [WRITTEN.end as usize - WRITTEN.start as usize; 2];
const NONE: [usize; 2] = [0; 2];

/// How many of the leases each of the hosts knows.
fn known(cluster: &Cluster, leases: &[Lease]) -> [usize; 2] {
    [0, 1].map(|member| {
        let peers = peers(&cluster.members[member].daemon);
        leases.iter().filter(|lease| peers.contains_key(&lease.subnet.to_string())).count()
    })
}

/// Deletes every lease, also those of real hosts, and returns how long the others stay peers.
fn mass_deletion(name: &str, after_deletion: impl FnOnce(&Cluster)) -> Duration {
    let hold = format!("--mass-delete-hold={}s", HOLD.as_secs());
    let mut cluster = Cluster::start(&plan(VXLAN).with_flag(&hold)).unwrap();
    let leases: Vec<Lease> = WRITTEN.map(paper_lease).collect();
    leases.iter().for_each(|lease| lease.write(&cluster.etcd, PREFIX).unwrap());
    let mut held = Duration::ZERO;
    Scenario::new(name).play(&mut cluster, |cluster| {
        time_until("every lease to be known", Instant::now(), PROMPT, || known(cluster, &leases) == ALL);
        let since = Instant::now();
        cluster.etcd.ctl(&["del", "--prefix", &format!("{PREFIX}/subnets/")]).unwrap();
        sleep(MOMENT);
        assert_eq!(known(cluster, &leases), ALL, "held");
        after_deletion(cluster);
        let is_done = || known(cluster, &leases) == NONE;
        held = time_until("the deleted leases to be gone", since, HOLD * 2, is_done);
        held
    });
    held
}

#[test]
fn mass_deletion_is_held() {
    let held = mass_deletion("every lease deleted, held for 10 s", |_| ());
    assert!(held >= HOLD, "{held:?}");
}

#[test]
fn hold_is_ended_by_the_operator() {
    let release = |cluster: &Cluster| {
        cluster.members.iter().for_each(|member| member.daemon.signal(Signal::SIGHUP).unwrap());
        sleep(MOMENT);
        let leases: Vec<Lease> = WRITTEN.map(paper_lease).collect();
        assert_eq!(known(cluster, &leases), ALL, "SIGHUP has files read again and ends no hold");
        cluster.members.iter().for_each(|member| {
            member.daemon.ctl("release").unwrap();
        });
    };
    let held = mass_deletion("every lease deleted, let go by flannelctl release", release);
    assert!(held < HOLD, "{held:?}");
}
