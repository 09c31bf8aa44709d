//! Whatever keeps packets from their way is told where people and programs look, soon after it comes, and not any more
//! soon after it is gone.

use std::time::{Duration, Instant};

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
    /// Whether it is told by `/readyz`, the metrics and `flannelctl status` alike.
    fn is_told(&self, host: &Member) -> bool {
        let answer = readiness(&host.node.host, HEALTH);
        let (entries, label, value) = match self.shown {
            Shown::Failing(condition) => ("failing", "pending{what", condition),
            Shown::Without(what) => ("limits", "limited{without", what),
        };
        let told: Vec<String> = answer[entries].as_array().unwrap().iter().map(ToString::to_string).collect();
        let is_in_answer = told
            .iter()
            .any(|entry| entry.contains(value) && self.names.iter().all(|name| entry.contains(name)));
        let is_in_metrics = metric(&host.node.host, HEALTH, &format!("flannel_{label}=\"{value}\"}}")) > 0;
        // With a condition that fails its exit code is 1.
        let status = match self.shown {
            Shown::Failing(_) => host.daemon.ctl("status").map_err(|_| ()).is_err(),
            Shown::Without(_) => host.daemon.ctl("status").is_ok_and(|text| text.contains(value)),
        };
        is_in_answer && is_in_metrics && status
    }
}

fn is_clear(host: &Member) -> bool {
    let answer = readiness(&host.node.host, HEALTH);
    answer["ready"] == true && answer["limits"] == serde_json::json!([]) && host.daemon.ctl("status").is_ok()
}

#[rstest]
#[case::vxlan(VXLAN, FAULTS)]
#[case::host_gw(HOST_GW, HOST_GW_FAULTS)]
fn every_fault_is_told_and_forgotten(#[case] backend: &str, #[case] faults: &[Fault]) {
    let cluster = Cluster::start(&plan(backend).with_flag(HEALTH_FLAG)).unwrap();
    let [host, peer] = &cluster.members[..] else { panic!("two hosts") };
    let now = || readiness(&host.node.host, HEALTH);
    let mut slow = Vec::new();
    wait::until_true("a host without faults", NOTICE, || is_clear(host)).unwrap();
    for fault in faults {
        for (what, change) in [("told", fault.cause), ("forgotten", fault.mend)] {
            let since = Instant::now();
            change(host, peer);
            let is_so = || if what == "told" { fault.is_told(host) } else { is_clear(host) };
            if let Err(error) = wait::until_true(what, NOTICE, is_so) {
                slow.push(format!("{}: {error:#}: {}", fault.name, now()));
                // What comes next is another fault.
                wait::until_true(what, 5 * NOTICE, is_so).unwrap_or_else(|_| panic!("{slow:#?}"));
            }
            println!("{}: {what} after {} ms", fault.name, since.elapsed().as_millis());
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
