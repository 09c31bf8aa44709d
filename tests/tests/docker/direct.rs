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

/// Whether the Docker that is there makes such rules.
pub fn makes_them() -> bool {
    let version = Dockerd::version().unwrap();
    println!("Docker {version}");
    version.split('.').next().unwrap().parse::<u32>().unwrap() >= 28
}

fn is_reached(from: &Container, to: &Container) -> bool {
    let ping = Ping { count: 3, ..Ping::default() };
    ping.send(&from.endpoint, &to.endpoint).unwrap().received > 0
}

#[test]
fn rules_against_direct_routing_are_told_with_the_remedy() {
    let site = Site::start(VXLAN, &["--ip-masq=true".to_owned()]).unwrap();
    let dockers = site.dockers(&[]).unwrap();
    let [one, other] = containers(&dockers);
    let makes_them = makes_them();
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
    if !makes_them {
        mend(&site.hosts[1], &other);
        check_mended(&site.hosts[1], &one, &other);
    }
}

/// What the remedy does, by the rules: none in raw, and one before Docker's own.
fn mend(host: &SiteHost, container: &Container) {
    let iptables =
        |arguments: &str| host.host.namespace.run("iptables", &format!("--wait {arguments}")).unwrap();
    iptables(&format!("-t raw -D PREROUTING -d {} ! -i docker0 -j DROP", container.endpoint.address));
    iptables("-I DOCKER-USER -d 10.5.0.0/16 -j ACCEPT");
}

fn check_mended(host: &SiteHost, from: &Container, to: &Container) {
    assert!(is_reached(from, to), "the remedy is one");
    wait::until("nothing to be told any more", NOTICE, || {
        let status = host.daemon.ctl("status")?;
        ensure!(!status.contains("direct routing"), "{status}");
        Ok(())
    })
    .unwrap();
}

/// With a Docker that makes such rules, and is told not to.
#[test]
fn the_remedy_is_one_with_the_docker_that_is_there() {
    let site = Site::start(VXLAN, &["--ip-masq=true".to_owned()]).unwrap();
    let options: &[&str] = if makes_them() { &["--allow-direct-routing"] } else { &[] };
    let dockers = site.dockers(options).unwrap();
    let [one, other] = containers(&dockers);
    for host in &site.hosts {
        host.host.namespace.run("iptables", "--wait -I DOCKER-USER -d 10.5.0.0/16 -j ACCEPT").unwrap();
    }
    check_mended(&site.hosts[1], &one, &other);
}
