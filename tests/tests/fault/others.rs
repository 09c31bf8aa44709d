//! What others do on a host: what is theirs stays, and a quarrel with them does not fill the log.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, check_reached, pod_pairs};

use crate::sight::{VXLAN, plan};

/// Longer than it takes until the kernel is compared after a change.
const COMPARED: Duration = Duration::from_secs(2);

/// Entries of flannel's device that the user has made, as iproute2 adds and shows them.
const ROUTE: &str = "198.51.100.0/24";
const NEIGHBOUR: &str = "10.5.200.5";
const STATION: &str = "02:00:00:00:55:55";

#[test]
fn what_the_user_has_put_on_the_device_stays() {
    let mut cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let host = cluster.members[0].node.host.namespace.clone();
    host.ip(&format!("route add {ROUTE} dev flannel.1")).unwrap();
    host.ip(&format!("neigh add {NEIGHBOUR} lladdr {STATION} dev flannel.1 nud permanent")).unwrap();
    host.run("bridge", &format!("fdb add {STATION} dev flannel.1 dst 192.168.77.99")).unwrap();
    let check = |when: &str| {
        let shown = [
            host.ip("route show dev flannel.1").unwrap(),
            host.ip("neigh show dev flannel.1 nud permanent").unwrap(),
            host.run("bridge", "fdb show dev flannel.1").unwrap(),
        ];
        for (text, wanted) in shown.iter().zip([ROUTE, NEIGHBOUR, STATION]) {
            assert!(text.contains(wanted), "{wanted} is gone {when}: {text}");
        }
    };
    // A change of the device has everything on it compared.
    host.ip("link set flannel.1 txqueuelen 500").unwrap();
    sleep(COMPARED);
    check("after a comparison");
    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    sleep(COMPARED);
    check("after a restart");
    cluster.members[0].daemon.ctl("verify").unwrap();
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}

#[test]
fn a_quarrel_over_a_route_takes_a_few_lines() {
    let cluster = Cluster::start(&plan(VXLAN)).unwrap();
    let (host, peer) = (&cluster.members[0], &cluster.members[1]);
    let lines = || fs::read_to_string(host.daemon.log()).unwrap().lines().count();
    let before = lines();
    let since = Instant::now();
    let mut removed = 0;
    while since.elapsed() < Duration::from_secs(4) {
        let deleted = host.node.host.namespace.ip(&format!("route del {}", peer.node.file.subnet));
        removed += usize::from(deleted.is_ok());
    }
    let logged = lines() - before;
    println!("{logged} lines about {removed} removals");
    assert!(removed >= 10, "the route was not put back often enough: {removed}");
    assert!(logged <= 8, "{logged} lines about {removed} removals");
    check_reached(&pod_pairs(&cluster.nodes())).unwrap();
}
