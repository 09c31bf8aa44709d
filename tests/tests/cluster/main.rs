//! Pods and services on nodes with kubelet, containerd and kube-proxy.

mod ask;
mod life;
mod services;

use flannel_tests::kubernetes::Lab;
use rstest::rstest;
use serde_json::json;

use ask::Checks;

/// With everything that happens to a cluster.
#[test]
fn services_and_life_with_vxlan() {
    let mut lab = Lab::start(&json!({ "Type": "vxlan" })).unwrap();
    let mut checks = Checks::default();
    services::check_all(&lab, true, &mut checks).unwrap();
    life::check_all(&mut lab, &mut checks).unwrap();
    checks.end(|| lab.tell());
}

#[rstest]
#[case::udp("udp", true)]
#[case::host_gw("host-gw", false)]
fn services_by(#[case] backend: &str, #[case] is_tunnelled: bool) {
    let lab = Lab::start(&json!({ "Type": backend })).unwrap();
    let mut checks = Checks::default();
    services::check_all(&lab, is_tunnelled, &mut checks).unwrap();
    life::check_guard(&lab, &mut checks);
    checks.end(|| lab.tell());
}
