//! What somebody else puts into a pod's flow never takes the short way on the proof of the pod's own packets.

use std::env;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::traffic::{Endpoint, Stream};
use flannel_tests::wait;
use rstest::rstest;

use super::flow::{Datagrams, Flow as _};
use super::{bypassed, told};
use crate::{HOST_GW, UDP, VXLAN, plan};

/// Packets of the attacker, where not told.
const PACKETS: u64 = 100_000;
/// The variable that tells, for a longer run.
const VARIABLE: &str = "FLANNEL_ATTACK_PACKETS";
/// Both begin alike, and are as long.
const PODS_OWN: &[u8; 8] = b"DATAgood";
const FORGED: &[u8; 8] = b"DATAevil";
const PORTS: (u16, u16) = (4801, 4802);

fn two_pods_each(backend: &str) -> Cluster {
    let plan = Plan { pods: 2, ..plan(backend) };
    let plan = plan.with_flag(&format!("--pod-bypass={}", told("auto")));
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster
}

/// A socket at one end of the flow; several can be at the same.
fn sender(machine: &Endpoint, from: &Endpoint, to: &Endpoint) -> UdpSocket {
    let socket = machine.namespace.within(|| Ok(UdpSocket::bind((from.address, PORTS.0))?)).unwrap();
    socket.connect((to.address, PORTS.1)).unwrap();
    socket
}

/// Has the kernel drop what a bridge's port receives with another source than its pod's.
fn drop_forged(host: &flannel_tests::namespace::Namespace, port: &str, own: &Endpoint) {
    let nft = |command: &str| host.run("nft", command).unwrap();
    nft("add table bridge ports");
    nft("add chain bridge ports pre { type filter hook prerouting priority -300 ; }");
    nft(&format!("add rule bridge ports pre iifname {port} ip saddr != {} counter drop", own.address));
}

/// A neighbour sends in a pod's name and with its ports, as fast as it can, and a rule of the bridge drops that.
#[rstest]
#[case::vxlan(VXLAN)]
#[case::udp(UDP)]
#[case::host_gw(HOST_GW)]
fn a_neighbour_gets_nothing_through_by_a_race(#[case] backend: &str) {
    let packets = env::var(VARIABLE).map_or(PACKETS, |number| number.parse().unwrap());
    let cluster = two_pods_each(backend);
    let [pod, neighbour] = [0, 1].map(|pod| &cluster.members[0].node.pods[pod]);
    let target = cluster.pod(1).unwrap();
    drop_forged(&cluster.members[0].node.host.namespace, &neighbour.port, &neighbour.endpoint);
    neighbour.endpoint.namespace.ip(&format!("address add {}/32 dev lo", pod.endpoint.address)).unwrap();
    let receiver = target.namespace.within(|| Ok(UdpSocket::bind((target.address, PORTS.1))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let own = sender(&pod.endpoint, &pod.endpoint, target);
    let forger = sender(&neighbour.endpoint, &pod.endpoint, target);

    let stop = Arc::new(AtomicBool::new(false));
    let [good, evil, forged] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut datagram = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                match receiver.recv(&mut datagram) {
                    Ok(length) if datagram[..length] == *FORGED => evil.fetch_add(1, Ordering::Relaxed),
                    Ok(_) => good.fetch_add(1, Ordering::Relaxed),
                    Err(_) => 0,
                };
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(own.send(PODS_OWN));
                sleep(Duration::from_micros(700));
            }
        });
        scope.spawn(|| {
            // Without a break, and then with pauses in which the pod's flow becomes short.
            while forged.load(Ordering::Relaxed) < packets && !stop.load(Ordering::Relaxed) {
                let number = forged.fetch_add(1, Ordering::Relaxed);
                drop(forger.send(FORGED));
                if number > packets / 2 && number % 5_000 == 0 {
                    sleep(Duration::from_millis(150));
                }
            }
        });
        let enough = || forged.load(Ordering::Relaxed) >= packets;
        wait::until_true("the attack to be over", Duration::from_secs(600), enough).unwrap();
        sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
    });
    let [good, evil] = [good, evil].map(|count| count.load(Ordering::Relaxed));
    println!("{evil} of {packets} forged datagrams arrived, and {good} of the pod's own");
    assert_eq!(evil, 0, "of {packets} forged datagrams");
    assert!(good > 100, "only {good} of the pod's own arrived");

    // Left alone, the pod's flow is short again.
    // To a host of udp that has been silent, packets go by the segmenter.
    let sent_by_bypass = || {
        let daemon = &cluster.members[0].daemon;
        bypassed(daemon).0 + daemon.count("pod_out", "to_segment").unwrap()
    };
    let before = sent_by_bypass();
    for _ in 0..500 {
        own.send(PODS_OWN).unwrap();
        sleep(Duration::from_millis(1));
    }
    assert!(sent_by_bypass() > before + 200);
}

/// A bridge that does not know behind which port a pod is sends to all of them.
#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn a_bridge_that_floods_misleads_nobody(#[case] backend: &str) {
    let cluster = two_pods_each(backend);
    let member = &cluster.members[1];
    let (host, pod) = (&member.node.host.namespace, &member.node.pods[1]);
    let show = pod.endpoint.namespace.run("ip", "-br link show eth0").unwrap();
    let mac = show.split_whitespace().nth(2).unwrap().to_owned();
    host.ip(&format!("neigh replace {} lladdr {mac} dev cni0 nud permanent", pod.endpoint.address)).unwrap();
    host.run("bridge", &format!("link set dev {} learning off", pod.port)).unwrap();
    host.ip("link set cni0 type bridge fdb_flush").unwrap();
    let receiver =
        pod.endpoint.namespace.within(|| Ok(UdpSocket::bind((pod.endpoint.address, PORTS.1))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let from = cluster.pod(0).unwrap();
    let socket = sender(from, from, &pod.endpoint);
    let send = move || {
        for _ in 0..2000 {
            socket.send(PODS_OWN).unwrap();
            sleep(Duration::from_micros(500));
        }
    };
    let sending = thread::spawn(send);
    let mut arrived = 0;
    while receiver.recv(&mut [0; 64]).is_ok() {
        arrived += 1;
    }
    sending.join().unwrap();
    assert_eq!(arrived, 2000);
}

#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn nothing_is_lost_when_a_bridge_forgets(#[case] backend: &str) {
    let cluster = two_pods_each(backend);
    let target = &cluster.members[1].node.pods[1].endpoint;
    let stream = Stream::start(cluster.pod(0).unwrap(), target, 5000).unwrap();
    for _ in 0..5 {
        sleep(Duration::from_millis(200));
        cluster.members[1].node.host.namespace.ip("link set cni0 type bridge fdb_flush").unwrap();
    }
    let losses = stream.stop().unwrap();
    assert_eq!((losses.unexcused(), losses.duplicates), (0, 0), "{losses:?}");
    // A pod that says something is known again.
    let flow = Datagrams::start(target, cluster.pod(0).unwrap()).unwrap();
    flow.wait_for(200).unwrap();
}
