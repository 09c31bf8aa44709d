//! The alerts that are shipped, by Prometheus' own tool.

use crate::prometheus::{packaging, promtool};

#[test]
fn the_alerts_are_well_formed() {
    let rules = packaging("prometheus/flannel-ebpf.rules.yml");
    let said = promtool(&["check", "rules", rules.to_str().unwrap()], "").unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn the_alerts_fire_when_they_should() {
    let tests = packaging("prometheus/flannel-ebpf.test.yml");
    let said = promtool(&["test", "rules", tests.to_str().unwrap()], "").unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
}
