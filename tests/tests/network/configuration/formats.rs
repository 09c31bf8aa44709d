//! Another VNI, another port: hosts go over one by one, and no packet is lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, HostOptions, Place, SubnetFile};
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::vxlan_host::VxlanHost;
use flannel_tests::wait::until;
use rstest::rstest;
use serde_json::Value;

use super::{AFTER_THE_OTHERS, PROMPT, RATE, Traffic, sleep, wait_for_way, with, write};
use crate::VXLAN;

/// Network identifier and UDP port.
type Format = (u32, u16);

const BEFORE: Format = (1, 8472);
/// How long the former format is served at least, and until that is noticed.
const GIVEN_UP: Duration = Duration::from_secs(90);

fn configure(cluster: &Cluster, plan: &Plan, (vni, port): Format) {
    let config = with(plan, |config| {
        (config["Backend"]["VNI"], config["Backend"]["Port"]) = (vni.into(), port.into());
    });
    write(cluster, &config);
}

/// Waits until every daemon serves that format and everything of it is in its place.
fn wait_for_format(cluster: &Cluster, (vni, port): Format) {
    until(&format!("VNI {vni} at port {port}"), AFTER_THE_OTHERS, || {
        cluster.members.iter().try_for_each(|member| {
            let status = member.daemon.ctl_json("status")?;
            ensure!(status["vni"] == vni && status["port"] == port, "{status}");
            Ok(())
        })
    })
    .unwrap();
    wait_for_way(cluster, &format!("flannel.{vni}"));
}

#[rstest]
#[case::vni("auto", (7, 8472))]
#[case::vni_clsact("clsact", (7, 8472))]
#[case::port("auto", (1, 4789))]
#[case::port_clsact("clsact", (1, 4789))]
#[case::both("auto", (7, 4789))]
#[case::both_xdp("xdp-generic", (7, 4789))]
fn nothing_is_lost_while_the_format_changes_and_changes_back(#[case] hook: &str, #[case] after: Format) {
    let plan = Plan::new(VXLAN).with_flag(&format!("--datapath-hook={hook}"));
    let mut cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    configure(&cluster, &plan, after);
    wait_for_format(&cluster, after);
    sleep(Duration::from_secs(1));
    // The former format is remembered.
    cluster.members[0].daemon.kill().unwrap();
    cluster.members[0].daemon.restart().unwrap();
    wait_for_format(&cluster, after);
    sleep(Duration::from_secs(1));
    configure(&cluster, &plan, BEFORE);
    wait_for_format(&cluster, BEFORE);
    sleep(Duration::from_secs(1));
    traffic.end_without_loss();
}

/// A daemon that did not run while the configuration changed knows what its host served, and so do the others.
#[test]
fn a_host_whose_daemon_was_away_goes_over_when_it_is_back() {
    let plan = Plan::new(VXLAN);
    let mut cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    // What it knows is written by then.
    sleep(Duration::from_secs(2));
    cluster.members[1].daemon.kill().unwrap();
    configure(&cluster, &plan, (7, 4789));
    sleep(Duration::from_secs(3));
    cluster.members[1].daemon.restart().unwrap();
    wait_for_format(&cluster, (7, 4789));
    sleep(Duration::from_secs(1));
    traffic.end_without_loss();
}

#[test]
fn the_former_format_is_given_up_in_the_end() {
    let plan = Plan::new(VXLAN);
    let cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    configure(&cluster, &plan, (7, 8472));
    wait_for_format(&cluster, (7, 8472));
    let host = &cluster.members[0];
    assert!(host.node.host.namespace.ip("link show flannel.1").is_ok(), "it takes what the kernel must take");
    until("the former format to be given up", GIVEN_UP, || {
        cluster.members.iter().try_for_each(|member| {
            let status = member.daemon.ctl_json("status")?;
            ensure!(status["former"] == Value::Null, "{status}");
            ensure!(member.node.host.namespace.ip("link show flannel.1").is_err(), "flannel.1 is there");
            Ok(())
        })
    })
    .unwrap();
    wait_for_format(&cluster, (7, 8472));
    assert!(limits(&cluster, 0).unwrap().is_empty());
    let lease = cluster.etcd.list(&format!("{PREFIX}/subnets/")).unwrap().remove(0).value;
    assert!(lease.contains(r#""BackendData":{"VNI":7,"VtepMAC":""#), "as stock flannel writes it: {lease}");
    traffic.end_without_loss();
}

/// What limits a daemon, in its own words.
fn limits(cluster: &Cluster, member: usize) -> Result<String> {
    let status = cluster.members[member].daemon.ctl_json("status")?;
    let limits = status["daemon"]["limits"].as_array().with_context(|| status.to_string())?;
    Ok(limits.iter().map(Value::to_string).collect())
}

fn stock_host(cluster: &Cluster) -> VxlanHost {
    let host = Host::new(&cluster.network, Place::Near, 5, HostOptions::default()).unwrap();
    let file = SubnetFile {
        subnet: "10.5.250.0/24".parse().unwrap(),
        bridge: [10, 5, 250, 1].into(),
        ..cluster.members[0].node.file
    };
    let stock = VxlanHost::join(&host, &cluster.etcd, PREFIX, file, 1).unwrap();
    stock.learn(&cluster.etcd, PREFIX).unwrap();
    stock
}

/// Streams between the pods of ours and that of a stock host, of which nothing may be lost.
fn start_streams(cluster: &Cluster, stock: &VxlanHost) -> Vec<Stream> {
    let end = stock.node.endpoints().next().unwrap();
    let pods = [cluster.pod(0).unwrap(), cluster.pod(1).unwrap()];
    let pairs = pods.into_iter().flat_map(|pod| [(pod, end), (end, pod)]);
    let streams = pairs.map(|(from, to)| Stream::start(from, to, RATE / 5).unwrap()).collect();
    sleep(Duration::from_secs(1));
    streams
}

fn end_without_loss(streams: Vec<Stream>) {
    sleep(Duration::from_secs(1));
    let losses: Vec<Losses> = streams.into_iter().map(|stream| stream.stop().unwrap()).collect();
    assert!(losses.iter().all(|losses| losses.sent > u64::from(RATE / 5)), "{losses:?}");
    assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}");
    println!("{losses:?}");
}

/// It goes over when it is restarted, and does not say at which port it listens.
#[rstest]
#[case::vni("auto", (7, 8472))]
#[case::port("auto", (1, 4789))]
#[case::port_clsact("clsact", (1, 4789))]
#[case::both("auto", (7, 4789))]
fn a_stock_host_is_reached_before_and_after_its_restart(#[case] hook: &str, #[case] after: Format) {
    let plan = Plan::new(VXLAN).with_flag(&format!("--datapath-hook={hook}"));
    let mut cluster = Cluster::start(&plan).unwrap();
    let mut stock = stock_host(&cluster);
    let reached = |cluster: &Cluster, stock: &VxlanHost| {
        check_reached(&pod_pairs(&[cluster.nodes(), vec![&stock.node]].concat()))
    };
    reached(&cluster, &stock).unwrap();
    let streams = start_streams(&cluster, &stock);
    configure(&cluster, &plan, after);
    wait_for_format(&cluster, after);
    end_without_loss(streams);
    let told = until("the stock host to be told of", PROMPT, || {
        let told = limits(&cluster, 0)?;
        ensure!(
            told.contains("is still served") && told.contains(&stock.lease().public_ip.to_string()),
            "{told}"
        );
        Ok(told)
    });
    told.unwrap();
    stock.restart_as(after, &cluster.etcd, PREFIX).unwrap();
    until("the stock host to be reached again", AFTER_THE_OTHERS, || reached(&cluster, &stock)).unwrap();
    let streams = start_streams(&cluster, &stock);
    cluster.members[0].daemon.kill().unwrap();
    cluster.members[0].daemon.restart().unwrap();
    wait_for_format(&cluster, after);
    end_without_loss(streams);
}
