//! Whatever keeps packets from their way is told where people and programs look, soon after it comes, and not any more
//! soon after it is gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flannel_tests::cluster::{Cluster, Member};
use flannel_tests::network::BRIDGE;
use flannel_tests::wait;
use rstest::rstest;

use crate::sight::{HEALTH, HEALTH_FLAG, HOST_GW, VXLAN, metric, plan, readiness};

/// Until a fault is told, and until it is forgotten.
const NOTICE: Duration = Duration::from_secs(2);

/// A fault of a host.
struct Fault {
    name: &'static str,
    cause: fn(&Member, &Member),
    mend: fn(&Member, &Member),
    /// The condition that it fails, or what the host is said to go without.
    shown: Shown,
    /// What the reason names.
    names: &'static [&'static str],
}

enum Shown {
    Failing(&'static str),
    Without(&'static str),
}

fn run(host: &Member, program: &str, arguments: &str) {
    host.node.host.namespace.run(program, arguments).unwrap();
}

fn ip(host: &Member, arguments: &str) {
    run(host, "ip", arguments);
}

fn sysctl(host: &Member, setting: &str, value: &str) {
    host.node.host.namespace.sysctl(setting, value).unwrap();
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "the underlay has lost its address",
        cause: |host, _| ip(host, "address flush dev eth0"),
        mend: |host, _| {
            ip(host, &format!("address add {}/24 dev eth0", host.node.host.address));
            ip(host, "route replace default via 192.168.77.1");
        },
        shown: Shown::Failing("datapath in place"),
        names: &["underlay"],
    },
    Fault {
        name: "the host does not forward",
        cause: |host, _| sysctl(host, "ipv4/ip_forward", "0"),
        mend: |host, _| sysctl(host, "ipv4/ip_forward", "1"),
        shown: Shown::Failing("packets forwarded"),
        names: &["net.ipv4.ip_forward", BRIDGE, "--ip-forward"],
    },
    Fault {
        name: "one bridge does not forward",
        cause: |host, _| sysctl(host, &format!("ipv4/conf/{BRIDGE}/forwarding"), "0"),
        mend: |host, _| sysctl(host, &format!("ipv4/conf/{BRIDGE}/forwarding"), "1"),
        shown: Shown::Failing("packets forwarded"),
        names: &[BRIDGE],
    },
    Fault {
        name: "a policy of IPsec",
        cause: |host, peer| ip(host, &format!("xfrm policy add {} action block", policy(host, peer))),
        mend: |host, peer| ip(host, &format!("xfrm policy delete {}", policy(host, peer))),
        shown: Shown::Without("tunnel programs"),
        names: &["ip xfrm policy delete", "8472"],
    },
    Fault {
        name: "the default policy of IPsec",
        cause: |host, _| ip(host, "xfrm policy setdefault in block"),
        mend: |host, _| ip(host, "xfrm policy setdefault in accept"),
        shown: Shown::Without("tunnel programs"),
        names: &["ip xfrm policy setdefault in accept"],
    },
    Fault {
        name: "a rule of iptables about the tunnel's port",
        cause: |host, _| run(host, "iptables", "-w -A INPUT -p udp --dport 8472 -j DROP"),
        mend: |host, _| run(host, "iptables", "-w -D INPUT -p udp --dport 8472 -j DROP"),
        shown: Shown::Without("firewall"),
        names: &["--dport 8472", "INPUT", "filter", "--guard"],
    },
    Fault {
        name: "a table like firewalld's",
        cause: |host, _| {
            run(host, "nft", "add table inet firewalld");
            let chain = "{ type filter hook forward priority 10 ; }";
            run(host, "nft", &format!("add chain inet firewalld filter_FORWARD {chain}"));
            run(host, "nft", "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited");
        },
        mend: |host, _| run(host, "nft", "delete table inet firewalld"),
        shown: Shown::Without("forward rules"),
        names: &["inet firewalld filter_FORWARD", "10.5.0.0/16"],
    },
    Fault {
        name: "Docker's rule against what comes straight to containers",
        cause: |host, _| run(host, "iptables", &format!("-w -t raw -A PREROUTING {}", docker(host))),
        mend: |host, _| run(host, "iptables", &format!("-w -t raw -D PREROUTING {}", docker(host))),
        shown: Shown::Without("direct routing"),
        names: &["raw", "allow-direct-routing"],
    },
    Fault {
        name: "a bridge with a former subnet",
        cause: |host, _| ip(host, &format!("address add 10.5.250.1/24 dev {BRIDGE}")),
        mend: |host, _| ip(host, &format!("address del 10.5.250.1/24 dev {BRIDGE}")),
        shown: Shown::Without("own addresses"),
        names: &[BRIDGE, "10.5.250.1/24"],
    },
];

const HOST_GW_FAULTS: &[Fault] = &[
    Fault {
        name: "the underlay does not forward",
        cause: |host, _| sysctl(host, "ipv4/conf/eth0/forwarding", "0"),
        mend: |host, _| sysctl(host, "ipv4/conf/eth0/forwarding", "1"),
        shown: Shown::Failing("packets forwarded"),
        names: &["eth0"],
    },
    Fault {
        name: "somebody has the route to the only peer",
        cause: |host, peer| {
            let subnet = peer.node.file.subnet;
            ip(host, &format!("route replace {subnet} via 192.168.77.1 proto static"));
        },
        mend: |host, peer| ip(host, &format!("route delete {} proto static", peer.node.file.subnet)),
        shown: Shown::Without("peers"),
        names: &["1 of 1"],
    },
];

fn policy(host: &Member, peer: &Member) -> String {
    let (own, other) = (host.node.host.address, peer.node.host.address);
    format!("src {own} dst {other} proto udp dport 8472 dir out")
}

fn docker(host: &Member) -> String {
    format!("-d {} ! -i {BRIDGE} -j DROP", host.node.pods[0].endpoint.address)
}

impl Fault {
    /// Fails unless it is told by `/readyz`, the metrics and `flannelctl status` alike.
    fn check_told(&self, host: &Member) -> Result<()> {
        let answer = readiness(&host.node.host, HEALTH);
        let (entries, label, value) = match self.shown {
            Shown::Failing(condition) => ("failing", "pending{what", condition),
            Shown::Without(what) => ("limits", "limited{without", what),
        };
        let told = answer[entries].as_array().context("no list")?.iter().map(ToString::to_string);
        let names_all =
            |entry: String| entry.contains(value) && self.names.iter().all(|name| entry.contains(name));
        ensure!(told.into_iter().any(names_all), "/readyz: {answer}");
        let series = format!("flannel_{label}=\"{value}\"}}");
        ensure!(metric(&host.node.host, HEALTH, &series) > 0, "there is no {series}");
        let status = host.daemon.ctl("status");
        match self.shown {
            // Its exit code is 3 then.
            Shown::Failing(_) => ensure!(status.is_err(), "status: {status:?}"),
            Shown::Without(_) => ensure!(status?.contains(value), "status says nothing of it"),
        }
        Ok(())
    }
}

fn check_clear(host: &Member) -> Result<()> {
    let answer = readiness(&host.node.host, HEALTH);
    ensure!(answer["ready"] == true && answer["limits"] == serde_json::json!([]), "/readyz: {answer}");
    host.daemon.ctl("status").map(|_| ())
}

#[rstest]
#[case::vxlan(VXLAN, FAULTS)]
#[case::host_gw(HOST_GW, HOST_GW_FAULTS)]
fn every_fault_is_told_and_forgotten(#[case] backend: &str, #[case] faults: &[Fault]) {
    let cluster = Cluster::start(&plan(backend).with_flag(HEALTH_FLAG)).unwrap();
    let [host, peer] = &cluster.members[..] else { panic!("two hosts") };
    wait::until("a host without faults", NOTICE, || check_clear(host)).unwrap();
    let mut slow = Vec::new();
    for fault in faults {
        let mut play = |what: &str, change: fn(&Member, &Member), check: &dyn Fn() -> Result<()>| {
            let since = Instant::now();
            change(host, peer);
            if let Err(error) = wait::until(what, NOTICE, check) {
                slow.push(format!("{}: {error:#}", fault.name));
                // What comes next is another fault.
                let _ = wait::until(what, 5 * NOTICE, check);
            }
            println!("{}: {what} after {} ms", fault.name, since.elapsed().as_millis());
        };
        play("told", fault.cause, &|| fault.check_told(host));
        play("forgotten", fault.mend, &|| check_clear(host));
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
