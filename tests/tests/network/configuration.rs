//! The network's configuration may change: what can takes effect at once, and no packet is lost; the rest is told.

mod formats;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, Member, Plan, check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::SubnetFile;
use flannel_tests::traffic::{Conversation, Losses, Stream};
use flannel_tests::wait::until;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{UDP, VXLAN};

/// Datagrams per second, in one direction.
const RATE: u32 = 5000;
/// How long a change may take to be heard of.
const PROMPT: Duration = Duration::from_secs(5);
/// The same where hosts wait until every other one has heard of it.
const AFTER_THE_OTHERS: Duration = Duration::from_secs(20);

/// The configuration with other keys.
fn with(plan: &Plan, change: impl FnOnce(&mut Value)) -> String {
    let mut config = serde_json::from_str(&plan.config).unwrap();
    change(&mut config);
    config.to_string()
}

fn write(cluster: &Cluster, config: &str) {
    cluster.etcd.put(&format!("{PREFIX}/config"), config).unwrap();
}

/// Traffic both ways between two pods, of which nothing may be lost.
struct Traffic {
    streams: [Stream; 2],
    connection: Conversation,
}

impl Traffic {
    fn start(cluster: &Cluster) -> Self {
        check_reached(&pod_pairs(&cluster.nodes())).unwrap();
        let (one, other) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
        let streams = [(one, other), (other, one)].map(|(from, to)| Stream::start(from, to, RATE).unwrap());
        Self { streams, connection: Conversation::start(one, other).unwrap() }
    }

    fn end_without_loss(self) {
        sleep(Duration::from_millis(500));
        let losses = self.streams.map(|stream| stream.stop().unwrap());
        self.connection.stop().unwrap();
        assert!(losses.iter().all(|losses| losses.sent > 2 * u64::from(RATE)), "{losses:?}");
        assert_eq!(Losses::unexcused_of(&losses), 0, "{losses:?}");
        println!("{losses:?}");
    }
}

/// The interface by which a member sends to the pod of another.
fn way(cluster: &Cluster, from: usize, to: usize) -> String {
    let pod = cluster.pod(to).unwrap().address;
    let route = cluster.members[from].node.host.namespace.ip(&format!("route get {pod}")).unwrap();
    route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or_default().to_owned()
}

fn wait_for_way(cluster: &Cluster, device: &str) {
    until(&format!("packets to go by {device}"), AFTER_THE_OTHERS, || {
        for (from, to) in [(0, 1), (1, 0)] {
            let way = way(cluster, from, to);
            ensure!(way == device, "they go by {way}");
        }
        Ok(())
    })
    .unwrap();
    let verify = |member: &Member| member.daemon.ctl("verify").map(|_| ());
    until("everything to be as it should be", AFTER_THE_OTHERS, || {
        cluster.members.iter().try_for_each(verify)
    })
    .unwrap();
}

#[rstest]
#[case::vxlan(VXLAN, "auto", "flannel.1")]
#[case::vxlan_clsact(VXLAN, "clsact", "flannel.1")]
#[case::udp(UDP, "auto", "flannel0")]
fn nothing_is_lost_while_direct_routing_comes_and_goes(
    #[case] backend: &str,
    #[case] hook: &str,
    #[case] device: &str,
) {
    let plan = Plan::new(backend).with_flag(&format!("--datapath-hook={hook}"));
    let cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    wait_for_way(&cluster, device);
    write(&cluster, &with(&plan, |config| config["Backend"]["DirectRouting"] = true.into()));
    wait_for_way(&cluster, "eth0");
    sleep(Duration::from_secs(1));
    write(&cluster, &plan.config);
    wait_for_way(&cluster, device);
    traffic.end_without_loss();
}

#[test]
fn nothing_is_lost_while_the_mtu_changes() {
    let plan = Plan::new(VXLAN);
    let cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    for (mtu, inner) in [(Some(1400), 1350), (None, 1450)] {
        write(&cluster, &with(&plan, |config| config["Backend"]["MTU"] = json!(mtu)));
        until("the device and the subnet file to follow", PROMPT, || {
            for Member { daemon, node } in &cluster.members {
                let link = node.host.namespace.ip("link show flannel.1")?;
                ensure!(link.contains(&format!("mtu {inner} ")), "{link}");
                ensure!(
                    SubnetFile::read(&daemon.subnet_file())?.mtu == inner,
                    "the subnet file says otherwise"
                );
            }
            Ok(())
        })
        .unwrap();
        sleep(Duration::from_secs(1));
    }
    traffic.end_without_loss();
}

/// The rules of flannel that `tool` shows.
fn rules(member: &Member, tool: &str, arguments: &[&str]) -> Result<usize> {
    let output = member.node.host.namespace.command(tool)?.args(arguments).output()?;
    ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    Ok(text.lines().filter(|line| line.contains("flannel")).count())
}

#[test]
fn nothing_is_lost_while_rules_go_over_to_the_other_tool() {
    let plan = Plan::new(VXLAN).with_flag("--ip-masq");
    let cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    let is_by = |nftables: bool| {
        cluster.members.iter().try_for_each(|member| {
            let (nft, iptables) =
                (rules(member, "nft", &["list", "tables"])?, rules(member, "iptables-save", &[])?);
            // The kernel's nftables also hold the rules of iptables, in tables of other names.
            ensure!((nft > 0) == nftables && (iptables > 0) != nftables, "nft {nft}, iptables {iptables}");
            Ok(())
        })
    };
    until("iptables to have the rules", PROMPT, || is_by(false)).unwrap();
    for nftables in [true, false] {
        write(&cluster, &with(&plan, |config| config["EnableNFTables"] = nftables.into()));
        until(&format!("the rules to be nftables': {nftables}"), PROMPT, || is_by(nftables)).unwrap();
    }
    sleep(Duration::from_secs(2));
    traffic.end_without_loss();
}

/// What `/readyz` answers.
fn readiness(cluster: &Cluster) -> Result<Value> {
    cluster.members[0].node.host.namespace.within(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9501")?;
        stream.write_all(b"GET /readyz?format=json HTTP/1.1\r\nHost: flanneld\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    })
}

/// What the daemon says of a configuration that it does not serve.
fn outdated(cluster: &Cluster) -> Result<String> {
    let ready = readiness(cluster)?;
    ready["outdated"].as_str().map(str::to_owned).with_context(|| ready.to_string())
}

#[rstest]
#[case::network("Network", json!("10.6.0.0/16"), "Network from 10.5.0.0/16 to 10.6.0.0/16")]
#[case::length("SubnetLen", json!(25), "SubnetLen from 24 to 25")]
#[case::backend("Backend", json!({"Type": "host-gw"}), "Backend.Type from vxlan to host-gw")]
#[case::invalid("Backend", json!({"Type": "vxlan", "MTU": "x"}), "MTU is \"x\"; give a whole number")]
fn what_is_not_served_is_told_and_nothing_changes(
    #[case] key: &str,
    #[case] value: Value,
    #[case] told: &str,
) {
    let plan = Plan::new(VXLAN).with_flag("--metrics-listen=127.0.0.1:9501");
    let cluster = Cluster::start(&plan).unwrap();
    let traffic = Traffic::start(&cluster);
    let daemon = &cluster.members[0].daemon;
    let hash = |status: &Value| status["daemon"]["configuration"]["hash"].as_str().map(str::to_owned);
    let before = hash(&daemon.ctl_json("status").unwrap()).unwrap();
    assert_eq!(readiness(&cluster).unwrap()["outdated"], Value::Null);

    write(&cluster, &with(&plan, |config| config[key] = value));
    let reason = until("the daemon to tell", PROMPT, || outdated(&cluster)).unwrap();
    assert!(reason.contains(told), "{reason}");
    let status = daemon.ctl_json("status").unwrap();
    assert_eq!(hash(&status), Some(before), "the former one is served");
    assert_eq!(status["daemon"]["configuration"]["outdated"], reason);
    assert!(daemon.ctl("status").unwrap().contains(told));
    sleep(Duration::from_secs(3));
    let log = fs::read_to_string(daemon.log()).unwrap();
    assert_eq!(log.matches("stays in force").count(), 1, "{log}");

    write(&cluster, &plan.config);
    until("the daemon to be content", PROMPT, || {
        let ready = readiness(&cluster)?;
        ensure!(ready["outdated"] == Value::Null, "{ready}");
        Ok(())
    })
    .unwrap();
    traffic.end_without_loss();
}
