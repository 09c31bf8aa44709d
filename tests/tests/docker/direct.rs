//! Docker 28 and newer drop what comes to a container from elsewhere than its bridge, which is what peers send.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use flannel_tests::containers::{Container, Dockerd, Site, SiteHost};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;

use crate::{VXLAN, containers};

/// The rules of dockerd 28.5.2 for one container, as `iptables-save` shows them; `ADDRESS` is the container's.
const RULES: &str = include_str!("docker-28.rules");
/// Until it is told.
const NOTICE: Duration = Duration::from_secs(5);

/// Has the host the rules of Docker 28, which an older Docker does not make.
fn add_rules(host: &SiteHost, container: &Container) {
    let rules = RULES.replace("ADDRESS", &container.endpoint.address.to_string());
    let mut restore: Command = host.host.namespace.command("iptables-restore").unwrap();
    let mut restore = restore.args(["--noflush", "--wait"]).stdin(Stdio::piped()).spawn().unwrap();
    restore.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(restore.wait().unwrap().success(), "{rules}");
}

fn makes_them(docker: &Dockerd) -> bool {
    let version = docker.version().unwrap();
    println!("Docker {version}");
    version.split('.').next().unwrap().parse::<u32>().unwrap() >= 28
}

fn is_reached(from: &Container, to: &Container) -> bool {
    let ping = Ping { count: 3, ..Ping::default() };
    ping.send(&from.endpoint, &to.endpoint).unwrap().received > 0
}

#[test]
fn rules_against_direct_routing_are_told_with_the_remedy() {
    let site = Site::start(VXLAN, &[]).unwrap();
    let dockers = site.dockers(&[]).unwrap();
    let [one, other] = containers(&dockers);
    let makes_them = makes_them(&dockers[0]);
    if !makes_them {
        assert!(is_reached(&one, &other), "an older Docker lets it pass");
        add_rules(&site.hosts[1], &other);
    }
    assert!(!is_reached(&one, &other), "the rules are in force");
    wait::until("the rules to be told", NOTICE, || {
        let status = site.hosts[1].daemon.ctl("status")?;
        let told = ["direct routing", "raw", "PREROUTING", "allow-direct-routing"];
        ensure!(told.iter().all(|word| status.contains(word)), "{status}");
        Ok(())
    })
    .unwrap();
    let log = std::fs::read_to_string(site.hosts[1].daemon.log()).unwrap();
    assert!(log.contains("allow-direct-routing"), "{log}");
}
