//! Kubernetes' own end-to-end tests of networks, on two nodes with flannel. They take long: `cargo xtask test` runs them
//! only if they are named.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use anyhow::Result;
use flannel_tests::kubernetes::{Lab, Names, program};
use serde_json::json;

/// What is about networks, or asks pods from their node.
const FOCUS: &str = r"\[sig-network\]|Container Lifecycle Hook.*http hook";
/// What these two nodes do not have, or what no network plugin decides; docs/testing.md says why.
const SKIP: &str = concat!(
    r"\[Feature:|LoadBalancer|load balancer|loadbalancer|\[Disruptive\]|\[sig-network\] DNS|SCTP|NetworkPolicy|Ingress",
    r"|#74839|CLOSE_WAIT|kube-proxy urls|ESIPP|proxy logs on node|Internet|GCE|NetworkTiers|Firewall|IPv6|IPerf"
);

/// Some tests first ask the Internet, by HTTP, whether it is there, and nothing else of it.
const PROXY: &str = "127.0.0.1:3128";
/// What is asked without it.
const NO_PROXY: &str = "192.168.77.0/24,10.0.0.0/8,127.0.0.0/8";

/// Answers that it is there.
fn play_the_internet(lab: &Lab) -> Result<()> {
    let listener = lab.api.namespace().within(|| Ok(TcpListener::bind(PROXY)?))?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            drop(client.read(&mut [0; 4096]));
            drop(client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        }
    });
    Ok(())
}

#[test]
fn tests_of_networks() {
    let lab = Lab::start(&json!({ "Type": named("FLANNEL_E2E_BACKEND", "vxlan") })).unwrap();
    let _names = Names::start(&lab.api).unwrap();
    play_the_internet(&lab).unwrap();
    let reports = lab.api.directory().join("reports");
    fs::create_dir(&reports).unwrap();
    let mut command = lab.api.namespace().command(program("e2e.test").unwrap()).unwrap();
    command
        .arg(format!("-kubeconfig={}", lab.api.kubeconfig("admin").display()))
        .arg(format!("-kubectl-path={}", program("kubectl").unwrap().display()))
        .arg(format!("-report-dir={}", reports.display()))
        .arg(format!("-e2e-output-dir={}", reports.display()))
        .args(["-provider=skeleton", "-num-nodes=2", "-dump-logs-on-failure=false", "-disable-log-dump"])
        .args(["-ginkgo.noColor", "-ginkgo.succinct"])
        .arg(format!("-ginkgo.focus={}", named("FLANNEL_E2E_FOCUS", FOCUS)))
        .arg(format!("-ginkgo.skip={SKIP}"));
    command.env("HOME", lab.api.directory()).stdin(Stdio::null());
    command.env("HTTP_PROXY", format!("http://{PROXY}")).env("NO_PROXY", NO_PROXY);
    let log = fs::File::create(lab.api.directory().join("e2e.log")).unwrap();
    let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    let report = fs::read_to_string(reports.join("junit_01.xml")).unwrap();
    let cases = cases(&report);
    for (name, outcome) in &cases {
        println!("{outcome}: {name}");
    }
    let failed = cases.iter().filter(|(_, outcome)| *outcome == "failed").count();
    let passed = cases.iter().filter(|(_, outcome)| *outcome == "passed").count();
    println!("{passed} passed, {failed} failed");
    if !status.success() {
        let keep = std::env::temp_dir().join("flannel-e2e.log");
        fs::copy(lab.api.directory().join("e2e.log"), &keep).unwrap();
        panic!("e2e.test failed ({status}); what it said is in {}\n{}", keep.display(), lab.tell());
    }
    assert!(passed > 0 && failed == 0);
}

/// What a variable says, or else this.
fn named(variable: &str, otherwise: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
}

/// The tests that ran, and their outcome, from a report as JUnit writes them.
fn cases(report: &str) -> Vec<(String, &'static str)> {
    let cases = report.split("<testcase ").skip(1);
    let named = cases.filter_map(|case| {
        let name =
            case.split("name=\"").nth(1)?.split('"').next()?.replace("&#34;", "\"").replace("&amp;", "&");
        let outcome = if case.contains("<skipped") {
            return None;
        } else if case.contains("<failure") {
            "failed"
        } else {
            "passed"
        };
        Some((name, outcome))
    });
    named.collect()
}

#[test]
fn outcomes_are_read_from_a_report() {
    let report = r#"<testsuite><testcase name="a &amp; b" classname="x"></testcase><testcase name="c" classname="x">
        <failure type="Failure">why</failure></testcase><testcase name="d"><skipped></skipped></testcase></testsuite>"#;
    assert_eq!(cases(report), [("a & b".to_owned(), "passed"), ("c".to_owned(), "failed")]);
}
