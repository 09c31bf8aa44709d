//! A host boots, or is given back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Member, Plan, Turn, check_reached, pod_pairs};
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::{Etcd, EtcdPlan, PREFIX};
use flannel_tests::leases::Lease;
use flannel_tests::namespace::Namespace;
use flannel_tests::network::{Host, HostOptions, Network, Place, SubnetFile};

use rstest::rstest;

use crate::firewall::{let_through, turn_away};
use crate::scenario::{STRANGER, Scenario, time_until};
use crate::sight::{HOST_GW, UDP, VXLAN, all_know, paper_lease, peers, plan};

/// A host that remembers the network waits 5 s for etcd, and then needs a moment.
const BOOT: Duration = Duration::from_secs(8);

/// Waits until the first host would know the second one after a boot.
fn wait_remembered(cluster: &Cluster) {
    let remembered = || fs::read_to_string(cluster.members[0].daemon.state_file()).unwrap_or_default();
    let other = cluster.members[1].node.file.subnet.to_string();
    time_until("the peer to be remembered", Instant::now(), BOOT, || remembered().contains(&other));
}

/// Leaves of the daemon and its datapath what is on the disk.
fn lose_power(member: &mut Member) {
    member.daemon.kill().unwrap();
    fs::remove_dir_all(member.daemon.pin_dir()).unwrap();
    fs::remove_file(member.daemon.subnet_file()).unwrap();
    member.node.host.namespace.ip("link del flannel.1").unwrap();
}

#[test]
fn reboot_without_etcd() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let mac = mac(&cluster.members[0]);
    wait_remembered(&cluster);
    let scenario = Scenario::new("host rebooted while etcd is away").until_mended().with_drops(STRANGER);
    scenario.play(&mut cluster, |cluster| {
        turn_away(cluster);
        let member = &mut cluster.members[0];
        lose_power(member);
        let since = Instant::now();
        member.daemon.restart().unwrap();
        time_until("the host to forward", since, BOOT, || {
            member.daemon.subnet_file().exists() && !peers(&member.daemon).is_empty()
        });
        check_reached(&pod_pairs(&cluster.nodes())).unwrap();
        let recovery = since.elapsed();
        let member = &cluster.members[0];
        assert_eq!(SubnetFile::read(&member.daemon.subnet_file()).unwrap(), member.node.file);
        assert_eq!(self::mac(member), mac);
        let_through(cluster);
        cluster.members[0].daemon.wait_ready().unwrap();
        recovery
    });
}

/// Every member is asked in turn, and each takes its time to say nothing.
#[test]
fn reboot_beside_members_that_are_silent() {
    let etcd = EtcdPlan { is_cluster: true, ..EtcdPlan::default() };
    let mut cluster = Cluster::start(&Plan { etcd, ..plan(VXLAN) }).unwrap();
    wait_remembered(&cluster);
    for member in 0..3 {
        cluster.etcd.freeze_member(member, true).unwrap();
    }
    let member = &mut cluster.members[0];
    lose_power(member);
    let since = Instant::now();
    member.daemon.restart().unwrap();
    let took = time_until("the host to forward", since, Duration::from_secs(12), || {
        member.daemon.subnet_file().exists() && !peers(&member.daemon).is_empty()
    });
    println!("booted beside three members that are silent: forwards after {took:.1?}");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    for member in 0..3 {
        cluster.etcd.freeze_member(member, false).unwrap();
    }
    cluster.members[0].daemon.wait_ready().unwrap();
}

fn mac(member: &Member) -> String {
    let shown = member.node.host.namespace.ip("-brief link show flannel.1").unwrap();
    shown.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn what_came_last_is_remembered() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let [first, last] = [200, 201].map(paper_lease);
    let state_file = cluster.members[0].daemon.state_file();
    let remembers = |lease: &Lease| {
        fs::read_to_string(&state_file).unwrap_or_default().contains(&lease.subnet.to_string())
    };
    first.write(&cluster.etcd, PREFIX).unwrap();
    // The next time, the file is written half a minute later.
    time_until("the first peer to be written", Instant::now(), Duration::from_secs(45), || remembers(&first));
    last.write(&cluster.etcd, PREFIX).unwrap();
    time_until("the last peer to be known", Instant::now(), BOOT, || all_know(&cluster, &last));
    assert!(!remembers(&last), "it is not written at once");
    cluster.members[0].daemon.terminate().unwrap();
    assert!(remembers(&last));
}

/// What became of the maps before `flannelctl down`.
#[derive(Clone, Copy, Debug)]
enum Maps {
    There,
    /// With all pins.
    Gone,
    OfAnotherLayout,
}

#[rstest]
#[case::by_maps(Maps::There)]
#[case::without_pins(Maps::Gone)]
#[case::of_another_layout(Maps::OfAnotherLayout)]
fn nothing_is_left_behind(#[case] maps: Maps) {
    let _turn = Turn::take();
    for backend in [VXLAN, UDP, HOST_GW] {
        let network = Network::new().unwrap();
        let etcd = Etcd::on_network(&network).unwrap();
        etcd.put(&format!("{PREFIX}/config"), &plan(backend).config).unwrap();
        paper_lease(200).write(&etcd, PREFIX).unwrap();
        let host = Host::new(&network, Place::Near, 1, HostOptions::default()).unwrap();
        // iptables leaves its empty tables behind after the first use.
        host.namespace.run("iptables", "-P FORWARD ACCEPT").unwrap();
        host.namespace.run("iptables", "-t nat -P POSTROUTING ACCEPT").unwrap();
        host.namespace.run("iptables", "-t mangle -P POSTROUTING ACCEPT").unwrap();
        let is_up = || host.namespace.ip("-brief link show eth0").unwrap().contains(" UP ");
        time_until("the cable to be noticed", Instant::now(), BOOT, is_up);
        let before = remains(&host.namespace);
        let flags = vec!["--ip-masq".to_owned()];
        let settings = Settings { endpoint: etcd.url(), prefix: PREFIX.to_owned(), flags };
        let mut daemon = Daemon::start(&host, settings).unwrap();
        daemon.wait_ready().unwrap();
        assert_ne!(remains(&host.namespace), before, "{backend}");
        daemon.terminate().unwrap();
        match maps {
            Maps::There => {}
            Maps::Gone => fs::remove_dir_all(daemon.pin_dir()).unwrap(),
            Maps::OfAnotherLayout => {
                let entries = fs::read_dir(daemon.pin_dir()).unwrap().map(|entry| entry.unwrap().path());
                let is_maps = |path: &PathBuf| path.to_string_lossy().contains("maps@");
                let found = entries.into_iter().find(is_maps).unwrap();
                fs::rename(found, daemon.pin_dir().join("maps@999")).unwrap();
            }
        }
        let files = [daemon.subnet_file(), daemon.state_file()];
        let [subnet_file, state_file] = files.each_ref().map(|file| file.display());
        let since = Instant::now();
        let down = format!("down --subnet-file={subnet_file} --state-file={state_file}");
        let said = daemon.ctl(&down).unwrap();
        println!("flannelctl down ({backend}): done in {:.0?}", since.elapsed());
        assert_eq!(remains(&host.namespace), before, "{backend}: {said}");
        assert!(!daemon.pin_dir().exists() && files.iter().all(|file| !file.exists()), "{said}");
    }
}

/// Everything a daemon may have made on a host, without counters and the numbers that the kernel gives.
fn remains(host: &Namespace) -> String {
    let mut shown = vec![
        host.ip("-brief link show").unwrap(),
        host.ip("-brief address show").unwrap(),
        host.ip("route show table all").unwrap(),
        host.ip("rule show").unwrap(),
        host.ip("neigh show nud permanent").unwrap(),
        host.run("tc", "qdisc show").unwrap(),
        host.run("nft", "--stateless list ruleset").unwrap(),
        host.run("bpftool", "net show").unwrap(),
    ];
    for table in ["filter", "nat", "mangle", "raw"] {
        let rules = host.run("iptables-save", &format!("-t {table}")).unwrap();
        let rules = rules.lines().filter(|line| line.starts_with('-'));
        shown.extend(rules.map(str::to_owned));
    }
    shown.join("\n")
}
