//! Containers of Docker and podman, as they are run without Kubernetes: hosts whose default bridge has the lease.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod direct;
mod options;
mod podman;
mod reach;

use flannel_tests::containers::{Container, Engine};

/// The backends' configurations.
const UDP: &str = r#"{"Type":"udp"}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// A container on each, which differ by their names.
fn containers<T: Engine>(engines: &[T; 2]) -> [Container; 2] {
    let [one, other] = engines;
    [one.run("c1").unwrap(), other.run("c2").unwrap()]
}

/// Fails unless each container reaches the other by ping, and by TCP both ways.
fn check_both_ways<T: Engine>(engines: &[T; 2], containers: &[Container; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        let target = containers[to].endpoint.address;
        engines[from].ping(&containers[from], target).unwrap();
        engines[to].serve_iperf(&containers[to]).unwrap();
        let rate = engines[from].iperf(&containers[from], target, 1).unwrap();
        println!("from {} to {}: {:.2} Gbit/s", containers[from].name, containers[to].name, rate / 1e9);
    }
}
