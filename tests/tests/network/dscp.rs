//! The class of service a pod asks for: hidden in the tunnel, or shown to the underlay by `--copy-dscp`.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};
use flannel_tests::namespace::Namespace;
use flannel_tests::traffic::capture::Capture;
use nix::sys::socket::{setsockopt, sockopt};
use rstest::rstest;

use crate::bypass::told;
use crate::{UDP, VXLAN, plan};

/// Expedited forwarding (RFC 3246), as a TOS byte.
const EXPEDITED: u8 = 46 << 2;
/// Datagrams sent: most of them when their flow bypasses the stack.
const DATAGRAMS: usize = 300;

/// The TOS bytes of UDP packets between two addresses, as they pass an interface.
fn seen(namespace: &Namespace, interface: &str, work: impl FnOnce(), ends: [[u8; 4]; 2]) -> BTreeSet<u8> {
    let capture = Capture::start(namespace, interface).unwrap();
    work();
    let (mut all, mut count) = (BTreeSet::new(), 0);
    let last = capture.find("last datagram", Duration::from_secs(2), |frame| {
        let is_ours = frame.get(23) == Some(&17) && frame.get(26..34) == Some(ends.as_flattened());
        if is_ours {
            all.extend(frame.get(15));
            count += 1;
        }
        (count == DATAGRAMS).then_some(())
    });
    assert!(last.is_ok(), "{count} of {DATAGRAMS} datagrams were seen");
    all
}

#[rstest]
#[case::vxlan(VXLAN, "auto", "auto")]
#[case::vxlan_clsact(VXLAN, "clsact", "off")]
#[case::udp(UDP, "auto", "auto")]
#[case::udp_clsact(UDP, "clsact", "off")]
fn dscp_is_shown_outside_where_told(#[case] backend: &str, #[case] hook: &str, #[case] bypass: &str) {
    let plan = plan(backend)
        .with_flag(&format!("--datapath-hook={hook}"))
        .with_flag(&format!("--pod-bypass={}", told(bypass)));
    // The first one copies, the second one does not.
    let mut cluster = Cluster::start(&plan).unwrap();
    let first = &mut cluster.members[0].daemon;
    first.terminate().unwrap();
    first.settings().flags.push("--copy-dscp".to_owned());
    first.restart().unwrap();
    first.wait_ready().unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();

    let hosts = [0, 1].map(|member| cluster.members[member].node.host.address.octets());
    for (from, to, outside) in [(0, 1, EXPEDITED), (1, 0, 0)] {
        let (pod, target) = (cluster.pod(from).unwrap(), cluster.pod(to).unwrap());
        let send = || {
            let socket = pod.namespace.within(|| Ok(UdpSocket::bind((pod.address, 0))?)).unwrap();
            setsockopt(&socket, sockopt::Ipv4Tos, &i32::from(EXPEDITED)).unwrap();
            for _ in 0..DATAGRAMS {
                socket.send_to(b"x", (target.address, 9)).unwrap();
                sleep(Duration::from_millis(1));
            }
        };
        let wire = format!("h{}", to + 1);
        let mut inside = BTreeSet::new();
        let arriving = || {
            inside = seen(&target.namespace, "eth0", send, [pod.address.octets(), target.address.octets()]);
        };
        let tos = seen(cluster.network.lan(), &wire, arriving, [hosts[from], hosts[to]]);
        assert_eq!((tos, inside), ([outside].into(), [EXPEDITED].into()));
        let bypassed = cluster.members[from].daemon.count("pod_out", "bypassed").unwrap();
        assert_eq!(bypassed > 100, bypass == "auto", "{bypassed} datagrams bypassed the stack");
    }
    let told = cluster.members[0].daemon.ctl("maps dump NODE_INFO").unwrap();
    assert!(told.contains("COPY DSCP"), "{told}");
}
