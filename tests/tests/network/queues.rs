//! An underlay with several queues keeps them and their CPUs; flows of the tunnel spread over them.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::anyhow;
use flannel_tests::cluster::{Cluster, Plan, check_reached, pod_pairs};
use flannel_tests::namespace::Namespace;
use flannel_tests::network::{HostOptions, Offloads};
use flannel_tests::traffic::{Endpoint, Stream, transfer};
use flannel_tests::wait;
use rstest::rstest;

use crate::{STRICT, UDP, VXLAN, plan};

const QUEUES: u8 = 4;
/// Flows that are sent, and the datagrams of each.
const FLOWS: u64 = 128;
const DATAGRAMS: u64 = 10;
/// As many as the sink has room for.
const AT_A_TIME: usize = 64;
/// Where the kernel has the settings of the underlay's queues.
const SYSFS: &str = "/sys/class/net/eth0/queues";

/// Runs a line of shell where /sys is that of the namespace.
fn shell(machine: &Namespace, line: &str) -> String {
    let arguments = ["netns", "exec", machine.name(), "sh", "-c", line];
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Has CPU 0 and CPU 1 take turns with the queues, received ones and sent ones.
fn steer(machine: &Namespace) {
    for queue in 0..QUEUES {
        let mask = 1 << (queue % 2);
        let receive = format!("echo {mask} > {SYSFS}/rx-{queue}/rps_cpus");
        let flows = format!("echo 128 > {SYSFS}/rx-{queue}/rps_flow_cnt");
        let send = format!("echo {mask} > {SYSFS}/tx-{queue}/xps_cpus");
        shell(machine, &format!("{receive} && {flows} && {send}"));
    }
}

/// The settings of the queues, one line each.
fn settings(machine: &Namespace) -> String {
    let files = format!("{SYSFS}/rx-*/rps_cpus {SYSFS}/rx-*/rps_flow_cnt {SYSFS}/tx-*/xps_cpus");
    shell(machine, &format!("grep . {files}"))
}

/// Packets each queue of a cable's end has received: those its other end has sent by the queue of that number.
fn received(machine: &Namespace, end: &str) -> BTreeMap<u8, u64> {
    let text = machine.run("ethtool", &format!("-S {end}")).unwrap();
    let count = |line: &str| {
        let (name, packets) = line.trim().split_once(": ")?;
        let queue = name.strip_prefix("rx_queue_")?.strip_suffix("_xdp_packets")?;
        Some((queue.parse().ok()?, packets.parse().ok()?))
    };
    text.lines().filter_map(count).collect()
}

/// Sends many flows from pod to pod, and returns when they have arrived.
fn send_flows(from: &Endpoint, to: &Endpoint) {
    let sink = to.namespace.within(|| Ok(UdpSocket::bind((to.address, 9))?)).unwrap();
    sink.set_read_timeout(Some(wait::stretched(Duration::from_millis(500)))).unwrap();
    let bind = || (0..FLOWS).map(|_| Ok(UdpSocket::bind((from.address, 0))?)).collect::<Result<Vec<_>, _>>();
    let sockets = from.namespace.within(bind).unwrap();
    for _ in 0..DATAGRAMS {
        for some in sockets.chunks(AT_A_TIME) {
            for socket in some {
                socket.send_to(b"x", (to.address, 9)).unwrap();
            }
            for _ in some {
                sink.recv_from(&mut [0; 8]).unwrap();
            }
        }
    }
}

fn start(backend: &str, hook: &str) -> Cluster {
    // Receive offload has the cable's end poll its queues, and count for each.
    let host = HostOptions { offloads: Offloads::Receive, queues: Some(QUEUES), ..STRICT };
    let plan = Plan { host, ..plan(backend) }.with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    cluster
}

#[rstest]
#[case::tcx("auto")]
#[case::clsact("clsact")]
#[case::xdp("xdp")]
#[case::xdp_generic("xdp-generic")]
fn flows_of_the_tunnel_spread_over_the_queues(#[case] hook: &str) {
    let cluster = start(VXLAN, hook);
    let host = &cluster.members[1].node.host.namespace;
    let queues = || [received(cluster.network.lan(), "h1"), received(host, "eth0")];
    let before = queues();
    assert!(before.iter().all(|queues| queues.len() == usize::from(QUEUES)), "{before:?}");
    send_flows(cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    wait::until("the queues to have counted", Duration::from_secs(2), || {
        let after = queues();
        let counted = |end: usize| -> Vec<u64> {
            after[end].iter().map(|(queue, packets)| packets - before[end][queue]).collect()
        };
        let [sent, received] = [0, 1].map(counted);
        // A queue in four has 32 of 128 flows; that one has fewer than 5 does not happen in a lifetime.
        let is_enough = |packets: &&u64| **packets >= 5 * DATAGRAMS;
        let used = [&sent, &received].map(|queues| queues.iter().filter(is_enough).count());
        // The switch between them numbers queues from one, and hands the first two to the first.
        let is_spread = used[0] == 4 && used[1] >= 3;
        println!("{hook}: sent by {sent:?}, received by {received:?}");
        if is_spread { Ok(()) } else { Err(anyhow!("sent by {sent:?}, received by {received:?}")) }
    })
    .unwrap();
}

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_xdp(UDP, "xdp")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_clsact(VXLAN, "clsact")]
#[case::vxlan_xdp(VXLAN, "xdp")]
#[case::vxlan_xdp_generic(VXLAN, "xdp-generic")]
fn what_queues_are_told_of_cpus_stays(#[case] backend: &str, #[case] hook: &str) {
    let mut cluster = start(backend, hook);
    let machine = cluster.members[1].node.host.namespace.clone();
    steer(&machine);
    let told = settings(&machine);
    assert_eq!(told.lines().count(), 3 * usize::from(QUEUES), "{told}");

    let (one, other) = (cluster.pod(0).unwrap().clone(), cluster.pod(1).unwrap().clone());
    let check = |what: &str| {
        let stream = Stream::start(&one, &other, 2000).unwrap();
        transfer(&one, &other, 20_000_000).unwrap();
        // A fast machine is done with the file before there are datagrams to judge by.
        sleep(Duration::from_millis(500));
        let losses = stream.stop().unwrap();
        assert_eq!(losses.duplicates, 0, "{what}: {losses:?}");
        // The file takes all the room there is beside it.
        assert!(losses.sent > 100 && losses.lost * 2 < losses.sent, "{what}: {losses:?}");
        assert_eq!(settings(&machine), told, "{what}");
    };
    check("steered");
    let daemon = &mut cluster.members[1].daemon;
    daemon.terminate().unwrap();
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    check("after a restart");

    daemon.terminate().unwrap();
    let files = [daemon.subnet_file(), daemon.state_file()].map(|file| file.display().to_string());
    daemon.ctl(&format!("down --subnet-file={} --state-file={}", files[0], files[1])).unwrap();
    assert_eq!(settings(&machine), told, "after flannelctl down");
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
    check("started anew");
}
