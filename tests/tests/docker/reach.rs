//! Containers on two hosts reach each other, whatever is started again.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::containers::{Container, Dockerd, Site};
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::wait;
use rstest::rstest;

use crate::direct::makes_them;
use crate::{HOST_GW, UDP, VXLAN, check_both_ways, containers};

/// Datagrams per second.
const RATE: u32 = 2000;
/// What it is like before and after something is done.
const REST: Duration = Duration::from_millis(300);
/// So long Docker 28 may refuse what nobody answers, while it starts.
const DOCKERS_GAP: Duration = Duration::from_secs(1);
/// Time for the ports of new containers to be served.
const SERVED: Duration = Duration::from_secs(10);

/// Something that happens to both hosts while containers talk.
struct Event {
    name: &'static str,
    /// Whether Docker is started again, which from version 28 on writes its chains anew, for a while in another order.
    is_of_docker: bool,
    happens: fn(&mut Site, &mut [Dockerd; 2]),
}

const EVENTS: &[Event] = &[
    Event {
        name: "flanneld ends and starts",
        is_of_docker: false,
        happens: |site, _| restart_flanneld(site),
    },
    Event {
        name: "dockerd ends and starts",
        is_of_docker: true,
        happens: |_, dockers| restart_dockerd(dockers),
    },
    Event {
        name: "both are killed, and dockerd starts first",
        is_of_docker: true,
        happens: |site, dockers| {
            site.hosts.iter_mut().for_each(|host| host.daemon.kill().unwrap());
            dockers.iter_mut().for_each(|docker| docker.kill().unwrap());
            dockers.iter_mut().for_each(|docker| docker.restart().unwrap());
            start_flanneld(site);
        },
    },
];

fn restart_flanneld(site: &mut Site) {
    for host in &mut site.hosts {
        assert_eq!(host.daemon.terminate().unwrap().code(), Some(0));
    }
    start_flanneld(site);
}

fn start_flanneld(site: &mut Site) {
    for host in &mut site.hosts {
        host.daemon.restart().unwrap();
        assert_eq!(host.daemon.wait_ready().unwrap(), host.file, "the subnet stays");
    }
}

fn restart_dockerd(dockers: &mut [Dockerd; 2]) {
    for docker in dockers {
        docker.terminate().unwrap();
        docker.restart().unwrap();
    }
}

/// What is lost meanwhile, of streams both ways.
fn losses(containers: &[Container; 2], mut happens: impl FnMut()) -> Vec<Losses> {
    let [one, other] = containers.each_ref().map(|container| &container.endpoint);
    let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
    sleep(REST);
    happens();
    sleep(REST);
    streams.into_iter().map(|stream| stream.stop().unwrap()).collect()
}

/// Fails unless what containers send passes bridge, routing and netfilter by at both ends.
fn check_bypassed(site: &Site, containers: &[Container; 2]) {
    wait::until_true("containers' ports to be served", SERVED, || {
        let sent = losses(containers, || ()).iter().map(|losses| losses.sent).sum::<u64>() / 2;
        let is_passed =
            |hook| site.hosts.iter().all(|host| host.daemon.count(hook, "bypassed").unwrap() > sent / 2);
        is_passed("pod_out") && (is_passed("decap") || is_passed("direct_in"))
    })
    .unwrap();
}

/// Docker 28 and newer is told what its users are to tell it.
fn start_dockers(site: &Site) -> [Dockerd; 2] {
    let is_new = makes_them();
    let dockers = site.dockers(if is_new { &["--allow-direct-routing"] } else { &[] }).unwrap();
    for host in site.hosts.iter().filter(|_| is_new) {
        host.host.namespace.run("iptables", "--wait -I DOCKER-USER -d 10.5.0.0/16 -j ACCEPT").unwrap();
    }
    dockers
}

#[rstest]
#[case::udp(UDP)]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn containers_reach_each_other_whatever_is_started_again(#[case] backend: &str) {
    let mut site = Site::start(backend, &["--ip-masq=true".to_owned()]).unwrap();
    let mut dockers = start_dockers(&site);
    let containers = containers(&dockers);
    for (host, container) in site.hosts.iter().zip(&containers) {
        assert!(host.file.subnet.contains(container.endpoint.address), "{container:?}");
        let link = container.endpoint.namespace.ip("link show eth0").unwrap();
        assert!(link.contains(&format!("mtu {}", host.file.mtu)), "{link}");
    }
    check_both_ways(&dockers, &containers);
    check_bypassed(&site, &containers);
    for event in EVENTS {
        let losses = losses(&containers, || (event.happens)(&mut site, &mut dockers));
        println!("{}: {losses:?}", event.name);
        assert!(losses.iter().all(|losses| losses.sent > 500 && losses.duplicates == 0), "{losses:?}");
        if event.is_of_docker && makes_them() {
            assert!(
                losses.iter().all(|losses| losses.longest_gap < DOCKERS_GAP),
                "{}: {losses:?}",
                event.name
            );
        } else {
            assert_eq!(Losses::unexcused_of(&losses), 0, "{}: {losses:?}", event.name);
        }
    }
    check_both_ways(&dockers, &containers);
    check_bypassed(&site, &containers);
}
