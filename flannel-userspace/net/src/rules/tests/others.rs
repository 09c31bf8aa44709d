//! Rules of others that matter, and those that do not.

use rstest::rstest;

use super::{Means, network, run, spec};
use crate::namespace::in_namespace;
use crate::rules::{Concern, OtherRules, RulesMonitor};

fn concern() -> Concern {
    Concern {
        port: Some(8472),
        network: network("10.5.0.0/16"),
        subnet: network("10.5.1.0/24"),
        bridges: vec!["docker0".to_owned()],
        devices: vec!["flannel.1".to_owned()],
        forwards: true,
    }
}

/// What is found, whichever engine is ours.
async fn found() -> OtherRules {
    let found = Means::Iptables.rules(&spec()).of_others(&concern()).await.unwrap();
    assert_eq!(Means::Nftables.rules(&spec()).of_others(&concern()).await.unwrap(), found);
    found
}

#[rstest]
#[case::dropped("-A INPUT -p udp --dport 8472 -j DROP", true)]
#[case::among_ports("-A INPUT -p udp -m multiport --dports 53,8400:8500 -j REJECT", true)]
#[case::sent("-A OUTPUT -p udp --dport 8472 -j DROP", true)]
#[case::only_from("-A INPUT -s 192.0.2.0/24 -p udp --dport 8472 -j ACCEPT", true)]
#[case::in_another_chain("-A MINE -p udp --dport 8472 -j DROP", true)]
#[case::before_tracking("-t raw -A PREROUTING -p udp --dport 8472 -j DROP", true)]
#[case::opened("-A INPUT -p udp --dport 8472 -j ACCEPT", false)]
#[case::logged("-A INPUT -s 192.0.2.0/24 -p udp --dport 8472 -j LOG", false)]
#[case::other_port("-A INPUT -p udp --dport 8473 -j DROP", false)]
#[case::other_protocol("-A INPUT -p tcp --dport 8472 -j DROP", false)]
#[case::forwarded("-A FORWARD -p udp --dport 8472 -j DROP", false)]
fn rules_of_iptables_about_the_port(#[case] rule: &str, #[case] is_told: bool) {
    for program in ["iptables", "iptables-legacy"] {
        in_namespace(async |_| {
            run(program, "-w -N MINE");
            run(program, "-w -A INPUT -i eth0 -j MINE");
            run(program, &format!("-w {rule}"));
            let OtherRules { without_effect, refusing, against_pods } = found().await;
            assert_eq!(without_effect.len(), usize::from(is_told), "{without_effect:?}");
            assert!(without_effect.iter().all(|told| told.contains(program)), "{without_effect:?}");
            assert!(refusing.is_empty() && against_pods.is_empty(), "{refusing:?} {against_pods:?}");
        });
    }
}

#[rstest]
#[case::dropped("inet", "input", "udp dport 8472 drop", true)]
#[case::set("ip", "input", "udp dport { 53, 8472 } reject", true)]
#[case::range("inet", "output", "udp dport 8400-8500 drop", true)]
#[case::either_protocol("inet", "prerouting", "meta l4proto udp th dport 8472 drop", true)]
#[case::only_from("inet", "input", "ip saddr 192.0.2.0/24 udp dport 8472 accept", true)]
#[case::in_another_chain("inet", "input", "jump other", true)]
#[case::opened("inet", "input", "udp dport 8472 accept", false)]
#[case::other_port("inet", "input", "udp dport 8473 drop", false)]
#[case::forwarded("inet", "forward", "udp dport 8472 drop", false)]
#[case::ipv6("ip6", "input", "udp dport 8472 drop", false)]
fn rules_of_nftables_about_the_port(
    #[case] family: &str,
    #[case] hook: &str,
    #[case] rule: &str,
    #[case] is_told: bool,
) {
    in_namespace(async |_| {
        Means::Nftables.feed(&format!(
            "table {family} firewalld {{
               chain other {{ udp dport 8472 drop; }}
               chain base {{ type filter hook {hook} priority 0; {rule}; }}
             }}"
        ));
        let OtherRules { without_effect, .. } = found().await;
        assert_eq!(without_effect.len(), usize::from(is_told), "{without_effect:?}");
        assert!(without_effect.iter().all(|told| told.contains("firewalld")), "{without_effect:?}");
    });
}

#[rstest]
#[case::policy("policy drop;", true)]
#[case::last_rule("iifname \"lo\" accept; counter reject with icmpx admin-prohibited;", true)]
#[case::the_network_is_accepted("ip saddr 10.5.0.0/16 accept; reject;", false)]
#[case::the_device_is_accepted("iifname \"flannel.1\" accept; reject;", false)]
#[case::by_name("ip saddr 192.0.2.1 drop;", false)]
#[case::nothing("", false)]
fn chains_that_refuse_the_rest(#[case] rules: &str, #[case] is_told: bool) {
    in_namespace(async |_| {
        Means::Nftables.feed(&format!(
            "table inet firewalld {{
               chain filter_FORWARD {{ type filter hook forward priority filter + 10; {rules} }}
               chain filter_INPUT {{ type filter hook input priority filter; policy drop; }}
             }}
             table ip6 six {{ chain forward {{ type filter hook forward priority filter; policy drop; }}; }}"
        ));
        run("iptables", "-P FORWARD DROP");
        let expected = if is_told { vec!["inet firewalld filter_FORWARD".to_owned()] } else { Vec::new() };
        assert_eq!(found().await.refusing, expected);
    });
}

#[rstest]
#[case::raw("iptables", "-t raw -A PREROUTING -d 10.5.1.2/32 ! -i docker0 -j DROP", true)]
#[case::filter("iptables", "-A FORWARD ! -i docker0 -o docker0 -j DROP", true)]
#[case::elsewhere("iptables", "-t raw -A PREROUTING -d 172.18.0.2/32 ! -i br-1 -j DROP", false)]
#[case::one_source("iptables", "-A FORWARD -s 192.0.2.1 -o docker0 -j DROP", false)]
#[case::nftables("nft", "add rule ip docker raw ip daddr 10.5.1.2 iifname != \"docker0\" counter drop", true)]
fn rules_of_docker_against_what_comes_straight(
    #[case] program: &str,
    #[case] rule: &str,
    #[case] is_told: bool,
) {
    in_namespace(async |_| {
        Means::Nftables.feed(
            "table ip docker { chain raw { type filter hook prerouting priority raw; policy accept; }; }",
        );
        run(program, rule);
        assert_eq!(found().await.against_pods.len(), usize::from(is_told));
    });
}

/// The rules of Docker 28 in the table filter, behind what the user has put into Docker's chain for that.
#[rstest]
#[case::nothing("", true)]
#[case::the_network("-A DOCKER-USER -d 10.5.0.0/16 -j ACCEPT", false)]
#[case::the_subnet("-A DOCKER-USER -d 10.5.1.0/24 -m comment --comment \"of flannel\" -j ACCEPT", false)]
#[case::everything("-I FORWARD 1 -j ACCEPT", false)]
#[case::another_network("-A DOCKER-USER -d 10.6.0.0/16 -j ACCEPT", true)]
#[case::one_container("-A DOCKER-USER -d 10.5.1.2 -j ACCEPT", true)]
#[case::one_port("-A DOCKER-USER -d 10.5.0.0/16 -p tcp --dport 80 -j ACCEPT", true)]
#[case::behind_it("-A FORWARD -d 10.5.0.0/16 -j ACCEPT", true)]
#[case::not_by_all("-A SOME -d 10.5.0.0/16 -j ACCEPT", true)]
fn rules_of_docker_that_what_is_accepted_before_does_not_meet(#[case] rule: &str, #[case] is_told: bool) {
    in_namespace(async |_| {
        for chain in ["DOCKER", "DOCKER-USER", "DOCKER-FORWARD", "SOME"] {
            run("iptables", &format!("-N {chain}"));
        }
        run("iptables", "-A FORWARD -i eth7 -j SOME");
        run("iptables", "-A FORWARD -j DOCKER-USER");
        run("iptables", "-A FORWARD -j DOCKER-FORWARD");
        run("iptables", "-A DOCKER-FORWARD -o docker0 -j DOCKER");
        run("iptables", "-A DOCKER ! -i docker0 -o docker0 -j DROP");
        if !rule.is_empty() {
            Means::Iptables.feed(&format!("*filter\n{rule}\nCOMMIT\n"));
        }
        let told = found().await.against_pods;
        assert_eq!(told.len(), usize::from(is_told), "{told:?}");
    });
}

#[test]
fn changes_are_announced() {
    in_namespace(async |_| {
        let mut monitor = RulesMonitor::open().unwrap();
        let wait = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, monitor.changed()).await.is_err(), "nothing has changed");
        run("iptables", "-A INPUT -p udp --dport 8472 -j DROP");
        tokio::time::timeout(wait * 10, monitor.changed()).await.unwrap();
    });
}
